// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver in C, whose device (played by this program) writes 64 bytes past its buffer.
#include "moat/moat.h"

#include <stdio.h>
#include <stdlib.h>

static _Alignas(4096) unsigned char packet[4096], secret[4096], frame[4096 + 64] = {[4095] = 1};

static void on_fault(void* context, const moat_fault* fault) {
    ++*(int*)context;
    printf("%s: \"%s\" was passed by %d bytes\n", moat_fault_kind_name(fault->kind),
           fault->mapping->label, (int)fault->bytes_outside);
}

static void require(moat_code code, const moat_error* error) {
    if (code != MOAT_OK)
        exit(fprintf(stderr, "c_driver: %s\n", error->text));
}

int main(void) {
    moat_error e = MOAT_ERROR_INIT;
    moat_config config;
    moat_container* pci;
    moat_device* nic;
    uint64_t iova;
    int faults = 0;
    require(moat_config_init(&config, sizeof config), &e);
    config.on_fault = on_fault;
    config.context = &faults;
    require(moat_container_open(&config, &pci, &e), &e);
    require(moat_device_attach(pci, "0000:00:03.0", &nic, &e), &e);
    require(moat_map(pci, packet, sizeof packet, MOAT_FROM_DEVICE, "receive ring", &iova, &e), &e);
    const moat_code write = moat_device_write(nic, iova, frame, sizeof frame, NULL, &e);
    require(moat_unmap(pci, iova, sizeof packet, MOAT_FROM_DEVICE, &e), &e);
    printf("the last byte is 0x%x, the neighbour's first 0x%x\n", packet[4095], secret[0]);
    require(moat_container_close(pci, &e), &e);
    return write == MOAT_REFUSED && faults == 1 ? 0 : 1;
}
