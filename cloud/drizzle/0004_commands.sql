CREATE TABLE "command" (
	"command_id" text PRIMARY KEY NOT NULL,
	"robot_pk" bigint NOT NULL,
	"kind" text NOT NULL,
	"parameters" jsonb NOT NULL,
	"timeout_ms" integer NOT NULL,
	"reason" text NOT NULL,
	"motion_epoch" bigint NOT NULL,
	"idempotency_key" text,
	"request_hash" text NOT NULL,
	"requested_by" text NOT NULL,
	"trace_id" text NOT NULL,
	"status" text NOT NULL,
	"detail" text DEFAULT '' NOT NULL,
	"progress" double precision DEFAULT 0 NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	"sent_at" timestamp (3) with time zone,
	"cancel_requested_at" timestamp (3) with time zone,
	"cancel_requested_by" text
);
--> statement-breakpoint
CREATE TABLE "command_transition" (
	"command_id" text NOT NULL,
	"status" text NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	"detail" text NOT NULL,
	CONSTRAINT "command_transition_command_id_status_pk" PRIMARY KEY("command_id","status")
);
--> statement-breakpoint
ALTER TABLE "command" ADD CONSTRAINT "command_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "command_transition" ADD CONSTRAINT "command_transition_command_id_command_command_id_fk" FOREIGN KEY ("command_id") REFERENCES "public"."command"("command_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "command_idempotency" ON "command" USING btree ("robot_pk","idempotency_key") WHERE "command"."idempotency_key" is not null;--> statement-breakpoint
CREATE INDEX "command_robot" ON "command" USING btree ("robot_pk","created_at","command_id");--> statement-breakpoint
CREATE INDEX "command_open" ON "command" USING btree ("created_at") WHERE "command"."status" in ('accepted', 'delivered', 'executing');