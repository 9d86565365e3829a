CREATE TABLE "client_certificate" (
	"serial_number" text PRIMARY KEY NOT NULL,
	"kind" text NOT NULL,
	"tenant_id" text NOT NULL,
	"name" text NOT NULL,
	"fingerprint_sha256" text NOT NULL,
	"scopes" text[] NOT NULL,
	"robot_ids" text[],
	"issued_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"revoked_at" timestamp (3) with time zone,
	"revoked_reason" text,
	CONSTRAINT "client_certificate_fingerprint_sha256_unique" UNIQUE("fingerprint_sha256")
);
--> statement-breakpoint
ALTER TABLE "client_certificate" ADD CONSTRAINT "client_certificate_tenant_id_tenant_tenant_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenant"("tenant_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "client_certificate_name" ON "client_certificate" USING btree ("kind","tenant_id","name");