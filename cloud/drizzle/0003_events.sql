CREATE TABLE "alert" (
	"alert_id" text PRIMARY KEY NOT NULL,
	"tenant_id" text NOT NULL,
	"robot_pk" bigint NOT NULL,
	"robot_id" text NOT NULL,
	"rule_id" text NOT NULL,
	"kind" text NOT NULL,
	"severity" text NOT NULL,
	"title" text NOT NULL,
	"dedupe_key" text NOT NULL,
	"raised_at" timestamp (3) with time zone NOT NULL,
	"last_at" timestamp (3) with time zone NOT NULL,
	"cleared_at" timestamp (3) with time zone,
	"cleared_by" text,
	"acknowledged_at" timestamp (3) with time zone,
	"acknowledged_by" text,
	"acknowledged_notes" text,
	"occurrences" integer NOT NULL,
	"flapping" boolean NOT NULL,
	"backfilled" boolean NOT NULL,
	"value" double precision,
	"details" jsonb NOT NULL,
	"trace_id" text NOT NULL,
	"stored_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "alert_history" (
	"entry_id" bigserial PRIMARY KEY NOT NULL,
	"alert_id" text NOT NULL,
	"change" text NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	"stored_at" timestamp (3) with time zone NOT NULL,
	"actor" text,
	"notes" text,
	"details" jsonb DEFAULT '{}'::jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "alert_pending" (
	"robot_pk" bigint NOT NULL,
	"epoch" text NOT NULL,
	"seq" bigint NOT NULL,
	CONSTRAINT "alert_pending_robot_pk_epoch_seq_pk" PRIMARY KEY("robot_pk","epoch","seq")
);
--> statement-breakpoint
CREATE TABLE "alert_progress" (
	"feed" text PRIMARY KEY NOT NULL,
	"position" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "alert_rule" (
	"tenant_id" text NOT NULL,
	"rule_id" text NOT NULL,
	"rule" jsonb NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	"updated_by" text NOT NULL,
	"removed_at" timestamp (3) with time zone,
	CONSTRAINT "alert_rule_tenant_id_rule_id_pk" PRIMARY KEY("tenant_id","rule_id")
);
--> statement-breakpoint
CREATE TABLE "alert_webhook" (
	"webhook_id" text PRIMARY KEY NOT NULL,
	"tenant_id" text NOT NULL,
	"url" text NOT NULL,
	"description" text NOT NULL,
	"secret" text NOT NULL,
	"severities" text[] NOT NULL,
	"changes" text[] NOT NULL,
	"robot_ids" text[],
	"enabled" boolean NOT NULL,
	"created_at" timestamp (3) with time zone NOT NULL,
	"updated_at" timestamp (3) with time zone NOT NULL,
	"updated_by" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "webhook_delivery" (
	"delivery_id" text PRIMARY KEY NOT NULL,
	"webhook_id" text NOT NULL,
	"type" text NOT NULL,
	"body" text NOT NULL,
	"state" text NOT NULL,
	"attempts" integer DEFAULT 0 NOT NULL,
	"due_at" timestamp (3) with time zone NOT NULL,
	"last_status" integer,
	"last_error" text,
	"created_at" timestamp (3) with time zone NOT NULL,
	"ended_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "bus_event" (
	"position" bigserial PRIMARY KEY NOT NULL,
	"feed" bigint,
	"tenant_id" text,
	"subject_id" text,
	"event_id" text NOT NULL,
	"type" text NOT NULL,
	"occurred_at" timestamp (3) with time zone NOT NULL,
	"stored_at" timestamp (3) with time zone NOT NULL,
	"trace_id" text NOT NULL,
	"payload" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "bus_progress" (
	"step" text PRIMARY KEY NOT NULL,
	"feed" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "robot_energy_hour" (
	"hour" timestamp (3) with time zone NOT NULL,
	"robot_pk" bigint NOT NULL,
	"stream" text NOT NULL,
	"energy_j" double precision NOT NULL,
	"covered_s" double precision NOT NULL,
	"last_ms" double precision NOT NULL,
	"last_w" double precision NOT NULL,
	CONSTRAINT "robot_energy_hour_hour_robot_pk_stream_pk" PRIMARY KEY("hour","robot_pk","stream")
);
--> statement-breakpoint
ALTER TABLE "alert" ADD CONSTRAINT "alert_tenant_id_tenant_tenant_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenant"("tenant_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "alert" ADD CONSTRAINT "alert_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "alert_history" ADD CONSTRAINT "alert_history_alert_id_alert_alert_id_fk" FOREIGN KEY ("alert_id") REFERENCES "public"."alert"("alert_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "alert_rule" ADD CONSTRAINT "alert_rule_tenant_id_tenant_tenant_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenant"("tenant_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "alert_webhook" ADD CONSTRAINT "alert_webhook_tenant_id_tenant_tenant_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenant"("tenant_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "webhook_delivery" ADD CONSTRAINT "webhook_delivery_webhook_id_alert_webhook_webhook_id_fk" FOREIGN KEY ("webhook_id") REFERENCES "public"."alert_webhook"("webhook_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "robot_energy_hour" ADD CONSTRAINT "robot_energy_hour_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "alert_open" ON "alert" USING btree ("tenant_id","dedupe_key") WHERE "alert"."cleared_at" is null;--> statement-breakpoint
CREATE INDEX "alert_window" ON "alert" USING btree ("tenant_id","raised_at" DESC NULLS LAST,"alert_id" DESC NULLS LAST);--> statement-breakpoint
CREATE INDEX "alert_robot" ON "alert" USING btree ("robot_pk","raised_at");--> statement-breakpoint
CREATE INDEX "alert_dedupe" ON "alert" USING btree ("tenant_id","dedupe_key","raised_at");--> statement-breakpoint
CREATE INDEX "alert_history_alert" ON "alert_history" USING btree ("alert_id","entry_id");--> statement-breakpoint
CREATE INDEX "alert_rule_updated" ON "alert_rule" USING btree ("updated_at");--> statement-breakpoint
CREATE INDEX "alert_webhook_tenant" ON "alert_webhook" USING btree ("tenant_id");--> statement-breakpoint
CREATE INDEX "webhook_delivery_due" ON "webhook_delivery" USING btree ("due_at") WHERE "webhook_delivery"."state" = 'pending';--> statement-breakpoint
CREATE INDEX "webhook_delivery_webhook" ON "webhook_delivery" USING btree ("webhook_id","created_at");--> statement-breakpoint
CREATE UNIQUE INDEX "bus_event_id" ON "bus_event" USING btree ("tenant_id","subject_id","event_id");--> statement-breakpoint
CREATE UNIQUE INDEX "bus_event_feed" ON "bus_event" USING btree ("feed");--> statement-breakpoint
CREATE INDEX "bus_event_fresh" ON "bus_event" USING btree ("position") WHERE "bus_event"."feed" is null;--> statement-breakpoint
CREATE INDEX "bus_event_type" ON "bus_event" USING btree ("tenant_id","type","occurred_at");