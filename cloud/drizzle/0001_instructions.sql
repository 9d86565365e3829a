CREATE TABLE "instruction_counter" (
	"tenant_id" text NOT NULL,
	"robot_id" text NOT NULL,
	"last" bigint NOT NULL,
	CONSTRAINT "instruction_counter_tenant_id_robot_id_pk" PRIMARY KEY("tenant_id","robot_id")
);
--> statement-breakpoint
CREATE TABLE "instruction_key" (
	"serial" bigserial PRIMARY KEY NOT NULL,
	"key_id" text NOT NULL,
	"public_key" "bytea" NOT NULL,
	"private_key_pem" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "instruction_key_key_id_unique" UNIQUE("key_id")
);
