CREATE TABLE "health_model" (
	"robot_pk" bigint PRIMARY KEY NOT NULL,
	"body" "bytea" NOT NULL,
	"learnt_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "health_model" ADD CONSTRAINT "health_model_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;