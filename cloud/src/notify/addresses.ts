import { BlockList, isIP } from 'node:net';

/** IPv4 ranges that are not the public internet (IANA special-purpose registry, RFC 6890 and later). */
const IPV4_CLOSED: readonly (readonly [string, number])[] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
];

/** IPv6: only global unicast is open, and of that not what hides another address or leads nowhere. */
const IPV6_OPEN: readonly [string, number] = ['2000::', 3];
const IPV6_CLOSED: readonly (readonly [string, number])[] = [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
];

const closed4 = new BlockList();
for (const [net, prefix] of IPV4_CLOSED) closed4.addSubnet(net, prefix, 'ipv4');
const closed6 = new BlockList();
for (const [net, prefix] of IPV6_CLOSED) closed6.addSubnet(net, prefix, 'ipv6');
const open6 = new BlockList();
open6.addSubnet(...IPV6_OPEN, 'ipv6');

/**
 * Whether an address is on the public internet. Loopback, private, link-local, unique local, carrier-grade NAT,
 * multicast, documentation, unspecified, IPv4-mapped, NAT64, 6to4 and Teredo addresses are not.
 */
export function isPublicAddress(address: string): boolean {
  // A zone names a link: such an address is never public.
  if (address.includes('%')) return false;
  switch (isIP(address)) {
    case 4:
      return !closed4.check(address, 'ipv4');
    case 6:
      return open6.check(address, 'ipv6') && !closed6.check(address, 'ipv6');
    default:
      return false;
  }
}
