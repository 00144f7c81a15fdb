/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef DUNE_DEVICE_H
#define DUNE_DEVICE_H

int dune_device_init(void);
void dune_device_exit(void);

#endif
