#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# dlopen_test.py LIBMOAT: a program that loads libmoat.so at run time can map memory with it, on a
# thread that it made before: the loader has room for the library's thread-local variables.
import ctypes
import sys
import threading

loaded = threading.Event()
outcome = []


def map_a_buffer():
    loaded.wait()
    library = ctypes.CDLL(sys.argv[1])
    size, bidirectional, no_error = ctypes.c_size_t(100), 2, None
    config = ctypes.create_string_buffer(256)  # longer than moat_config, with zeros behind it
    outcome.append(library.moat_config_init(config, ctypes.c_size_t(len(config))))
    container = ctypes.c_void_p()
    outcome.append(library.moat_container_open(config, ctypes.byref(container), no_error))
    buffer = ctypes.create_string_buffer(100)
    iova = ctypes.c_uint64()
    outcome.append(
        library.moat_map(container, buffer, size, bidirectional, b"buffer", ctypes.byref(iova),
                         no_error))
    outcome.append(library.moat_unmap(container, iova, size, bidirectional, no_error))
    outcome.append(library.moat_container_close(container, no_error))


thread = threading.Thread(target=map_a_buffer, daemon=True)
thread.start()
ctypes.CDLL(sys.argv[1])
loaded.set()
thread.join()
if outcome != [0] * 5:
    sys.exit(f"init, open, map, unmap and close returned {outcome}")
