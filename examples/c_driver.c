// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver in C that hears of its device's strays. Two buffers lie side by side; the device is told
// of the first and writes 64 bytes too many; the callback is told which buffer, and by how much.
#include "moat/moat.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_fault(void* context, const moat_fault* fault) {
    char text[4096];
    ++*(int*)context;
    printf("%s: \"%s\" was passed by %" PRIu64 " bytes\n", moat_fault_kind_name(fault->kind),
           fault->mapping != NULL ? fault->mapping->label : "nothing known", fault->bytes_outside);
    if (moat_report_text(fault->report, text, sizeof text, NULL, NULL) == MOAT_OK)
        fputs(text, stderr); // all of it, with the neighbours
}

static void require(moat_code code, const moat_error* error) {
    if (code == MOAT_OK)
        return;
    fprintf(stderr, "c_driver: %s\n", error->text);
    exit(2);
}

int main(void) {
    moat_error error = MOAT_ERROR_INIT;
    moat_config config;
    moat_container* container = NULL;
    moat_device* nic = NULL;
    int faults = 0;

    moat_config_init(&config, sizeof config);
    config.guard_bytes = 64 << 10;
    config.flags = MOAT_READ_ENVIRONMENT; // MOAT_OPTIONS=level=exact:... says otherwise
    config.on_fault = on_fault;
    config.context = &faults;
    require(moat_container_open(&config, &container, &error), &error);
    require(moat_device_attach(container, "0000:00:03.0", &nic, &error), &error);

    static _Alignas(4096) unsigned char packet[4096], secret[4096];
    uint64_t received = 0, other = 0;
    require(moat_map(container, packet, sizeof packet, MOAT_FROM_DEVICE, "receive ring", &received,
                     &error),
            &error);
    require(moat_map(container, secret, sizeof secret, MOAT_BIDIRECTIONAL, "descriptors", &other,
                     &error),
            &error);

    // The device's part, where it is a model. A real one, behind MOAT_BACKEND_VFIO, does it itself.
    unsigned char frame[sizeof packet + 64];
    memset(frame, 0xee, sizeof frame);
    size_t done = 0;
    if (moat_device_write(nic, received, frame, sizeof frame, &done, &error) != MOAT_REFUSED)
        return 1;
    printf("%zu bytes arrived, the neighbour's first byte is %d\n", done, secret[0]);

    require(moat_unmap(container, other, sizeof secret, MOAT_BIDIRECTIONAL, &error), &error);
    require(moat_unmap(container, received, sizeof packet, MOAT_FROM_DEVICE, &error), &error);
    require(moat_container_close(container, &error), &error);
    return faults == 1 && packet[0] == 0xee && secret[0] == 0 ? 0 : 1;
}
