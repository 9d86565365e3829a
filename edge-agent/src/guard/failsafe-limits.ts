import type { CommLimits } from '@outrider/shared/failsafe/classify-agent';
import type { LivenessLimits } from '@outrider/shared/failsafe/classify-liveness';
import type { JointLimits } from '@outrider/shared/failsafe/classify-signals';
import type { JudgeLimits } from '@outrider/shared/failsafe/judge';
import { type FailsafePolicy, policyWith } from '@outrider/shared/failsafe/rules';
import { type FailsafeSettings, policyChanges } from './failsafe-schema.ts';

/** What the reducer and the classifiers take of the settings. */
export interface FailsafeLimits {
  readonly policy: FailsafePolicy;
  readonly signals: JudgeLimits;
  readonly liveness: LivenessLimits;
  readonly comm: CommLimits;
  readonly stopConfirmMs: number;
}

const MB = 1_000_000;
const radians = (degrees: number): number => (degrees * Math.PI) / 180;

/** Policy and limits out of the checked settings. */
export function failsafeLimits(settings: FailsafeSettings): FailsafeLimits {
  const { policy } = policyWith(policyChanges(settings));
  return {
    policy: {
      ...policy,
      derateSpeedFactor: settings.derate_speed_factor,
      inwardSpeedMaxMps: settings.inward_speed_max_mps,
    },
    signals: judgeLimits(settings),
    liveness: {
      staleFactor: settings.stale_factor,
      staleMsMin: settings.stale_min_ms,
      mcuSilentMs: settings.mcu_silent_ms,
      agentStuckMs: settings.agent_stuck_ms,
      bootGraceMs: settings.boot_grace_ms,
      mcuReactionMs: settings.mcu_reaction_ms,
    },
    comm: { policy: settings.comm.policy, lostMs: settings.comm.lost_ms, maxMs: settings.comm.max_ms },
    stopConfirmMs: settings.stop_confirm_ms,
  };
}

function judgeLimits(settings: FailsafeSettings): JudgeLimits {
  const { body, battery, encoder, geofence } = settings;
  return {
    joints: Object.fromEntries(Object.entries(settings.joints).map(([name, joint]) => [name, jointLimits(joint)])),
    thermal: { maxC: settings.motor_max_c, tripC: settings.motor_trip_c, clearC: settings.motor_clear_c },
    thermalStreams: settings.thermal_streams,
    standstillRadps: settings.standstill_radps,
    trackingMaxRad: settings.tracking_max_rad,
    history: {
      jumpRadpsMax: encoder.jump_max_radps,
      jumpMarginRad: encoder.jump_margin_rad,
      frozenMs: encoder.frozen_ms,
      motorRiseMaxCps: settings.motor_rise_max_cps,
      riseWindowMs: settings.rise_window_ms,
    },
    body: {
      imuStreams: body.imu_streams,
      rollMaxRad: radians(body.roll_max_deg),
      pitchMaxRad: radians(body.pitch_max_deg),
      uprightMaxRad: radians(body.upright_max_deg),
      freeFallMps2: body.free_fall_mps2,
      freeFallMs: body.free_fall_ms,
      freeFallMsMax: body.free_fall_max_ms,
      impactMps2: body.impact_mps2,
    },
    power: {
      batteryStreams: battery.streams,
      criticalSoc: battery.critical_soc,
      clearSoc: battery.clear_soc,
      lowSoc: battery.low_soc,
      voltageMinV: battery.voltage_min_v,
      sagRatio: battery.sag_ratio,
      maxC: battery.max_c,
      tripC: battery.trip_c,
      clearC: battery.clear_c,
    },
    host: { diskMinBytes: settings.disk_min_mb * MB, slowFactor: settings.slow_factor },
    geofence: geofence && { frame: geofence.frame, corners: geofence.corners, marginM: geofence.margin_m },
    inwardSpeedMaxMps: settings.inward_speed_max_mps,
  };
}

const jointLimits = (joint: FailsafeSettings['joints'][string]): JointLimits => ({
  positionMinRad: joint.position_min_rad,
  positionMaxRad: joint.position_max_rad,
  velocityMaxRadps: joint.velocity_max_radps,
  effortMaxNm: joint.effort_max_nm,
  trackingMaxRad: joint.tracking_max_rad,
  temperatureMaxC: joint.temperature_max_c,
});
