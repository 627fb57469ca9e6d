// SPDX-License-Identifier: BSD-3-Clause
// Sequence numbers that nobody can guess (C).
#ifndef MESH_LWIP_HOOKS_H
#define MESH_LWIP_HOOKS_H
#define LWIP_HOOK_TCP_ISN(local_ip, local_port, remote_ip, remote_port) mesh_lwip_random()
#endif
