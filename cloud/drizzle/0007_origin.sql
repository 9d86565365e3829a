CREATE TABLE "ingest_origin" (
	"robot_pk" bigint NOT NULL,
	"epoch" text NOT NULL,
	"lane" integer NOT NULL,
	"seq" bigint NOT NULL,
	"orig_epoch" text NOT NULL,
	"orig_seq" bigint NOT NULL,
	"content_hash" "bytea" NOT NULL,
	"ingested_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "ingest_origin_robot_pk_epoch_lane_seq_pk" PRIMARY KEY("robot_pk","epoch","lane","seq")
);
--> statement-breakpoint
ALTER TABLE "ingest_cursor" ADD COLUMN "is_resent" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "ingest_origin" ADD CONSTRAINT "ingest_origin_robot_pk_robot_robot_pk_fk" FOREIGN KEY ("robot_pk") REFERENCES "public"."robot"("robot_pk") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "ingest_origin_first" ON "ingest_origin" USING btree ("robot_pk","orig_epoch","lane","orig_seq");