ALTER TABLE "robot_energy_hour" ADD COLUMN "first_ms" double precision NOT NULL;--> statement-breakpoint
ALTER TABLE "robot_energy_hour" ADD COLUMN "first_w" double precision NOT NULL;