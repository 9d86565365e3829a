import { newId } from '@outrider/shared/ids';
import type { Logger } from '@outrider/shared/log';
import { systemClock } from '@outrider/shared/time';
import type { GuardLink } from '../guard/guard-link.ts';
import type { RosSignal } from '../sources/ros-signals.ts';
import type { Ros2Source } from '../sources/ros2.ts';
import type { SourcePorts } from '../sources/source.ts';
import { Ros2Stop, type Ros2StopSettings } from './ros2-stop.ts';

/** Brings what ROS 2 says about place, motion and commands to whoever judges it. */
export function ros2Signals(
  guard: GuardLink | undefined,
  stop: Ros2Stop | undefined,
): NonNullable<SourcePorts['onSignal']> {
  return (signal: RosSignal, stream, declaredRateHz, receivedMonoNs) => {
    const origin = { stream, declaredRateHz, receivedMonoNs };
    if (signal.use === 'motion') stop?.observeMotion(stream, signal.speedMps, signal.turnRadps);
    else if (signal.use === 'position') guard?.reportPlace({ ...origin, frame: signal.frame, at: signal.at });
    else guard?.reportCommands({ ...origin, names: signal.names, positionRad: signal.positionRad });
  };
}

/** The stop over ROS 2, through the nodes of these sources, when it is configured. */
export function openRos2Stop(
  settings: Ros2StopSettings | undefined,
  guard: GuardLink,
  sources: readonly Ros2Source[],
  log: Logger,
): Ros2Stop | undefined {
  return (
    settings &&
    new Ros2Stop({
      settings,
      clock: systemClock,
      log,
      isGateOpen: () => guard.status()?.gateOpen ?? undefined,
      order: (isGateOpen) => {
        for (const source of sources) source.setGate(isGateOpen);
      },
      escalate: (reason) =>
        guard.trigger({
          commandId: newId('cmd'),
          mode: 'emergency_stop',
          reason,
          requestedBy: 'outrider-edge',
          traceId: newId('stop'),
          local: true,
        }),
    })
  );
}
