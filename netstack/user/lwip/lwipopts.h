// SPDX-License-Identifier: BSD-3-Clause
// How lwIP is built for us (C): TCP alone, one thread, no timers and no threads of its own, memory from an allocator with a limit.
// Addresses are translated around it (user_stack.cc), so it needs no IPv6; checksums are checked and made there, over
// what is really sent.
#ifndef MESH_LWIPOPTS_H
#define MESH_LWIPOPTS_H

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_TIMERS 0
#define LWIP_SOCKET 0
#define LWIP_NETCONN 0
#define LWIP_STATS 0

#define MEM_LIBC_MALLOC 1
#define MEMP_MEM_MALLOC 1
#define MEM_ALIGNMENT 8
#define mem_clib_malloc mesh_lwip_malloc
#define mem_clib_calloc mesh_lwip_calloc
#define mem_clib_free mesh_lwip_free

#define LWIP_IPV4 1
#define LWIP_IPV6 0
#define LWIP_ARP 0
#define LWIP_ETHERNET 0
#define LWIP_ICMP 0
#define LWIP_RAW 0
#define LWIP_UDP 0
#define LWIP_IGMP 0
#define LWIP_DNS 0
#define LWIP_DHCP 0
#define IP_REASSEMBLY 0
#define IP_FRAG 0
#define IP_FORWARD 0
#define CHECKSUM_GEN_IP 0
#define CHECKSUM_GEN_TCP 0
#define CHECKSUM_CHECK_IP 0
#define CHECKSUM_CHECK_TCP 0

#define LWIP_TCP 1
#define TCP_MSS 8900 /* the MTU decides below that */
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 5
#define TCP_WND (1024 * 1024)
#define TCP_SND_BUF (1024 * 1024)
#define TCP_SND_QUEUELEN 8192
#define TCP_SNDLOWAT (TCP_SND_BUF / 4)
#define TCP_SNDQUEUELOWAT (TCP_SND_QUEUELEN / 2)
#define MEMP_NUM_TCP_SEG TCP_SND_QUEUELEN
#define TCP_OVERSIZE 1220
#define TCP_QUEUE_OOSEQ 1
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_TIMESTAMPS 1
#define LWIP_TCP_KEEPALIVE 1
#define TCP_LISTEN_BACKLOG 0
#define LWIP_TCP_PCB_NUM_EXT_ARGS 1
#define LWIP_TCP_CALC_INITIAL_CWND(mss) ((tcpwnd_size_t)(10U * (mss))) /* RFC 6928 */
/* Fast timer 50 ms, slow timer 100 ms: a lost segment is sent again after 300 ms at least, not 1.5 s. */
#define TCP_TMR_INTERVAL 50
#define LWIP_TCP_RTO_TIME 1000
#define TCP_MSL 5000
#define LWIP_DISABLE_TCP_SANITY_CHECKS 1 /* they speak of pools, which there are none of */
#define LWIP_DISABLE_MEMP_SANITY_CHECKS 1

#define LWIP_RAND mesh_lwip_random
#define LWIP_HOOK_FILENAME "hooks.h"

#endif
