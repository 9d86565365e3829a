import { DomainError } from '@outrider/shared/errors';
import type { Clock } from '@outrider/shared/time';
import type { Principal } from '../identity/principal.ts';
import type { AuditTrail, CertificateRecord, DeviceCertificates, FleetStore } from './ports.ts';
import type { RobotRegistry } from './registry.ts';
import type { RobotRef } from './robot.ts';

/** Takes robots and their certificates out of use: sold, scrapped or stolen. */
export class Decommissioner {
  readonly #robots: RobotRegistry;
  readonly #store: FleetStore;
  readonly #certificates: DeviceCertificates;
  readonly #audit: AuditTrail;
  readonly #clock: Clock;

  constructor(deps: {
    robots: RobotRegistry;
    store: FleetStore;
    certificates: DeviceCertificates;
    audit: AuditTrail;
    clock: Clock;
  }) {
    this.#robots = deps.robots;
    this.#store = deps.store;
    this.#certificates = deps.certificates;
    this.#audit = deps.audit;
    this.#clock = deps.clock;
  }

  /**
   * Takes a robot out of the fleet: its keys and certificates end, and with them its session. What it recorded stays
   * until its retention ends. The id may be registered again, which makes another robot. Used by:
   * DELETE /v1/robots/{robot_id}.
   *
   * @throws DomainError `not_found` or `forbidden`
   */
  async deregister(principal: Principal, robotId: string, requestId: string): Promise<void> {
    const robot = await this.#robots.find(principal, robotId);
    await this.#store.removeRobot(robot.robotPk, this.#clock.epochMs());
    this.#robots.forget(robot);
    await this.#certificates.revokeRobotCertificates(robot.robotPk, 'robot is deregistered');
    await this.#record(principal, 'robot.deregister', robot, requestId, {});
  }

  /** Every certificate that the robot was given, newest first. Used by: GET /v1/robots/{robot_id}/certificates. */
  async certificatesOf(principal: Principal, robotId: string): Promise<CertificateRecord[]> {
    const robot = await this.#robots.find(principal, robotId);
    return await this.#certificates.listRobotCertificates(robot.robotPk);
  }

  /**
   * Takes back one certificate. Its session ends at once; the robot's key can still get another. Used by:
   * DELETE /v1/robots/{robot_id}/certificates/{serial_number}.
   *
   * @throws DomainError `not_found` or `forbidden`
   */
  async revokeCertificate(
    principal: Principal,
    robotId: string,
    serialNumber: string,
    requestId: string,
  ): Promise<void> {
    if (principal.kind === 'robot') throw new DomainError('forbidden', 'a robot cannot take back certificates');
    const robot = await this.#robots.find(principal, robotId);
    await this.#certificates.revokeCertificate(robot.robotPk, serialNumber, `revoked by ${principal.sub}`);
    await this.#record(principal, 'certificate.revoke', robot, requestId, { serial_number: serialNumber });
  }

  async #record(
    principal: Principal,
    action: string,
    robot: RobotRef,
    requestId: string,
    details: Readonly<Record<string, string>>,
  ): Promise<void> {
    await this.#audit.append({
      tenantId: principal.tenantId,
      subject: principal.sub,
      action,
      outcome: 'done',
      requestId,
      details: { robot_id: robot.robotId, ...details },
      atMs: this.#clock.epochMs(),
    });
  }
}
