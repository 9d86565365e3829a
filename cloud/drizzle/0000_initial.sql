-- Generated from src/storage/schema.ts, then by hand: telemetry_block is partitioned, with a default partition, and
-- its bodies are stored as they are because they are deflated already.
CREATE TABLE "app_user" (
	"user_id" text PRIMARY KEY NOT NULL,
	"tenant_id" text NOT NULL,
	"username" text NOT NULL,
	"password_hash" text NOT NULL,
	"scopes" text[] NOT NULL,
	"robot_ids" text[],
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"disabled_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "audit_entry" (
	"audit_id" bigserial PRIMARY KEY NOT NULL,
	"tenant_id" text,
	"subject" text,
	"action" text NOT NULL,
	"outcome" text NOT NULL,
	"request_id" text NOT NULL,
	"details" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"duration_ms" double precision,
	"at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "authority_key" (
	"name" text PRIMARY KEY NOT NULL,
	"certificate_pem" text NOT NULL,
	"private_key_pem" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "ingest_ahead" (
	"robot_pk" bigint NOT NULL,
	"epoch" text NOT NULL,
	"lane" integer NOT NULL,
	"seq_from" bigint NOT NULL,
	"seq_to" bigint NOT NULL,
	"content_hash" "bytea" NOT NULL,
	CONSTRAINT "ingest_ahead_robot_pk_epoch_lane_seq_from_pk" PRIMARY KEY("robot_pk","epoch","lane","seq_from")
);
--> statement-breakpoint
CREATE TABLE "ingest_cursor" (
	"robot_pk" bigint NOT NULL,
	"epoch" text NOT NULL,
	"lane" integer NOT NULL,
	"upto" bigint DEFAULT 0 NOT NULL,
	"max_seen" bigint DEFAULT 0 NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "ingest_cursor_robot_pk_epoch_lane_pk" PRIMARY KEY("robot_pk","epoch","lane")
);
--> statement-breakpoint
CREATE TABLE "latest_sample" (
	"robot_pk" bigint NOT NULL,
	"stream" text NOT NULL,
	"kind" text NOT NULL,
	"recorded_at" timestamp (3) with time zone NOT NULL,
	"ingested_at" timestamp (3) with time zone NOT NULL,
	"body" "bytea" NOT NULL,
	CONSTRAINT "latest_sample_robot_pk_stream_pk" PRIMARY KEY("robot_pk","stream")
);
--> statement-breakpoint
CREATE TABLE "oauth_client" (
	"client_id" text PRIMARY KEY NOT NULL,
	"tenant_id" text NOT NULL,
	"secret_hash" text NOT NULL,
	"scopes" text[] NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"revoked_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "quarantine" (
	"quarantine_id" bigserial PRIMARY KEY NOT NULL,
	"robot_pk" bigint NOT NULL,
	"topic" text NOT NULL,
	"epoch" text,
	"lane" integer,
	"seq" bigint,
	"reason" text NOT NULL,
	"body" "bytea" NOT NULL,
	"body_bytes" integer NOT NULL,
	"received_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "revoked_token" (
	"token_id" text PRIMARY KEY NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "robot" (
	"robot_pk" bigserial PRIMARY KEY NOT NULL,
	"tenant_id" text NOT NULL,
	"robot_id" text NOT NULL,
	"robot_name" text NOT NULL,
	"robot_type" text NOT NULL,
	"manufacturer" text,
	"model" text,
	"firmware_version" text,
	"capabilities" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"status_override" text,
	"accepting_tasks" boolean DEFAULT true NOT NULL,
	"registered_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"deregistered_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "robot_api_key" (
	"key_hash" text PRIMARY KEY NOT NULL,
	"robot_pk" bigint NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"revoked_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "robot_certificate" (
	"serial_number" text PRIMARY KEY NOT NULL,
	"robot_pk" bigint NOT NULL,
	"fingerprint_sha256" text NOT NULL,
	"issued_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"revoked_at" timestamp (3) with time zone,
	"revoked_reason" text
);
--> statement-breakpoint
CREATE TABLE "robot_event" (
	"robot_pk" bigint NOT NULL,
	"epoch" text NOT NULL,
	"seq" bigint NOT NULL,
	"event_id" text NOT NULL,
	"type" text NOT NULL,
	"occurred_at" timestamp (3) with time zone NOT NULL,
	"ingested_at" timestamp (3) with time zone NOT NULL,
	"trace_id" text NOT NULL,
	"content_hash" "bytea" NOT NULL,
	"payload" jsonb NOT NULL,
	CONSTRAINT "robot_event_robot_pk_epoch_seq_pk" PRIMARY KEY("robot_pk","epoch","seq")
);
--> statement-breakpoint
CREATE TABLE "robot_presence" (
	"robot_pk" bigint PRIMARY KEY NOT NULL,
	"presence" text NOT NULL,
	"agent_version" text,
	"boot_id" text,
	"changed_at" timestamp (3) with time zone NOT NULL,
	"last_seen_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "robot_shadow" (
	"robot_pk" bigint NOT NULL,
	"key" text NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	"ingested_at" timestamp (3) with time zone NOT NULL,
	"value" jsonb NOT NULL,
	CONSTRAINT "robot_shadow_robot_pk_key_pk" PRIMARY KEY("robot_pk","key")
);
--> statement-breakpoint
CREATE TABLE "signing_key" (
	"kid" text PRIMARY KEY NOT NULL,
	"algorithm" text NOT NULL,
	"public_jwk" jsonb NOT NULL,
	"private_jwk" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"retired_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "telemetry_block" (
	"robot_pk" bigint NOT NULL,
	"epoch" text NOT NULL,
	"seq" bigint NOT NULL,
	"recorded_at" timestamp (3) with time zone NOT NULL,
	"recorded_until" timestamp (3) with time zone NOT NULL,
	"ingested_at" timestamp (3) with time zone NOT NULL,
	"stream" text NOT NULL,
	"kind" text NOT NULL,
	"boot_id" text NOT NULL,
	"sample_count" integer NOT NULL,
	"content_hash" "bytea" NOT NULL,
	"body" "bytea" NOT NULL,
	CONSTRAINT "telemetry_block_robot_pk_epoch_seq_recorded_at_pk" PRIMARY KEY("robot_pk","epoch","seq","recorded_at")
) PARTITION BY RANGE ("recorded_at");
--> statement-breakpoint
CREATE TABLE "telemetry_block_default" PARTITION OF "telemetry_block" DEFAULT;
--> statement-breakpoint
CREATE TABLE "telemetry_gap" (
	"robot_pk" bigint NOT NULL,
	"epoch" text NOT NULL,
	"lane" integer NOT NULL,
	"seq_from" bigint NOT NULL,
	"seq_to" bigint NOT NULL,
	"reason" text NOT NULL,
	"sample_count" bigint NOT NULL,
	"from_at" timestamp (3) with time zone NOT NULL,
	"to_at" timestamp (3) with time zone NOT NULL,
	"ingested_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "telemetry_gap_robot_pk_epoch_lane_seq_from_pk" PRIMARY KEY("robot_pk","epoch","lane","seq_from")
);
--> statement-breakpoint
CREATE TABLE "tenant" (
	"tenant_id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"tier" text DEFAULT 'free' NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "app_user" ADD CONSTRAINT "app_user_tenant_id_tenant_tenant_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenant"("tenant_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "ingest_ahead" ADD CONSTRAINT "ingest_ahead_robot_pk_epoch_lane_ingest_cursor_robot_pk_epoch_lane_fk" FOREIGN KEY ("robot_pk","epoch","lane") REFERENCES "public"."ingest_cursor"("robot_pk","epoch","lane") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "ingest_cursor" ADD CONSTRAINT "ingest_cursor_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "latest_sample" ADD CONSTRAINT "latest_sample_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "oauth_client" ADD CONSTRAINT "oauth_client_tenant_id_tenant_tenant_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenant"("tenant_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "quarantine" ADD CONSTRAINT "quarantine_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "robot" ADD CONSTRAINT "robot_tenant_id_tenant_tenant_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenant"("tenant_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "robot_api_key" ADD CONSTRAINT "robot_api_key_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "robot_certificate" ADD CONSTRAINT "robot_certificate_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "robot_event" ADD CONSTRAINT "robot_event_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "robot_presence" ADD CONSTRAINT "robot_presence_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "robot_shadow" ADD CONSTRAINT "robot_shadow_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "telemetry_gap" ADD CONSTRAINT "telemetry_gap_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "app_user_username" ON "app_user" USING btree ("username");--> statement-breakpoint
CREATE INDEX "audit_entry_tenant" ON "audit_entry" USING btree ("tenant_id","at");--> statement-breakpoint
CREATE INDEX "quarantine_robot" ON "quarantine" USING btree ("robot_pk","received_at");--> statement-breakpoint
CREATE UNIQUE INDEX "robot_tenant_robot" ON "robot" USING btree ("tenant_id","robot_id") WHERE "robot"."deregistered_at" is null;--> statement-breakpoint
CREATE INDEX "robot_api_key_robot" ON "robot_api_key" USING btree ("robot_pk");--> statement-breakpoint
CREATE INDEX "robot_certificate_robot" ON "robot_certificate" USING btree ("robot_pk");--> statement-breakpoint
CREATE INDEX "robot_event_time" ON "robot_event" USING btree ("robot_pk","occurred_at");--> statement-breakpoint
CREATE INDEX "telemetry_block_history" ON "telemetry_block" USING btree ("robot_pk","kind","recorded_at");--> statement-breakpoint
CREATE INDEX "telemetry_block_long" ON "telemetry_block" USING btree ("robot_pk","recorded_at") WHERE ("telemetry_block"."recorded_until" - "telemetry_block"."recorded_at") > interval '1 day';--> statement-breakpoint
CREATE INDEX "telemetry_block_ingested" ON "telemetry_block" USING brin ("ingested_at");--> statement-breakpoint
ALTER TABLE "telemetry_block" ALTER COLUMN "body" SET STORAGE EXTERNAL;--> statement-breakpoint
ALTER TABLE "telemetry_block_default" ALTER COLUMN "body" SET STORAGE EXTERNAL;
