// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat for C: guard pages around what a device reaches. C11, and C++; -lmoat. The only header of
// libmoat.so, which exports nothing else; moat.hpp is the same for C++. Reasons:
// docs/design/api.md.
#ifndef MOAT_H
#define MOAT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// C's names, and C's way to write types:
// NOLINTBEGIN(readability-identifier-naming,modernize-use-using)

/// That of the soname: libmoat.so.1 serves every program that was built with an earlier header.
/// What was added since has a symbol version of its own: MOAT_1.1.
///
/// Structs: the caller writes sizeof into `size`, the library reads and writes no byte past it. One
/// that is shorter than the first version's is `MOAT_INVALID`; one that is longer than this
/// library's, with more than zeros there, is `MOAT_UNSUPPORTED`. In structs that the library
/// hands out, `size` says which fields there are.
///
/// Functions return a code, and fill `*error` where that is not null. They never end the program
/// for what an argument can get wrong, but for pointers that point to no such thing, or no longer,
/// and for memory that is mapped and freed while a device reaches it. No exception passes them.
/// Out parameters are written on success alone, where nothing else is said.
///
/// Threads: every function may be called by any thread at any time, where nothing else is said.
#define MOAT_ABI_VERSION 1

#if defined(__GNUC__)
#define MOAT_API __attribute__((visibility("default")))
#define MOAT_CHECKED __attribute__((warn_unused_result)) ///< ignoring the result is a warning
#else
#define MOAT_API
#define MOAT_CHECKED
#endif

/// What a function returns.
typedef int32_t moat_code;

enum {
    MOAT_OK = 0,
    MOAT_EMPTY = 1,        ///< a length of zero
    MOAT_UNALIGNED = 2,    ///< no multiple of what is required
    MOAT_OUT_OF_RANGE = 3, ///< outside of what the device, the IOMMU or the mapping reaches
    MOAT_OVERFLOW = 4,     ///< start + length does not fit into 64 bits
    MOAT_OVERLAP = 5,      ///< something lives there already
    MOAT_NOT_FOUND = 6,    ///< nothing lives there: a second unmap, mostly
    MOAT_MISMATCH = 7,     ///< something lives there, but of another size or direction
    MOAT_REFUSED = 8,      ///< not allowed: rights, the order of calls, or the IOMMU
    MOAT_UNSUPPORTED = 9,  ///< this backend, or this library, cannot
    MOAT_NO_MEMORY = 10,
    MOAT_NO_SPACE = 11, ///< no free range of device addresses fits
    MOAT_LIMIT = 12,    ///< a quota is used up
    MOAT_BUSY = 13,     ///< in use now, by another thread or by the caller's own callback
    MOAT_IO = 14,       ///< the device or the operating system failed
    MOAT_INVALID = 15,  ///< a null pointer, an unknown number, a struct of no known size
    MOAT_INTERNAL = 16, ///< a defect of libmoat, or an exception out of a callback
};

/// `moat_error error = MOAT_ERROR_INIT;` once, then as often as wanted.
typedef struct moat_error {
    uint32_t size;
    moat_code code;
    char text[248]; ///< one line with the values in question, cut where it is full; "" for MOAT_OK
} moat_error;

#define MOAT_ERROR_INIT {(uint32_t)sizeof(moat_error), 0, ""}

typedef struct moat_container moat_container; // device addresses, and what is mapped at them
typedef struct moat_device moat_device;       // a function of PCI that reaches them
typedef struct moat_report moat_report;       // what is told about one fault or error

/// moat_config.backend
enum {
    MOAT_BACKEND_SOFT = 0,    ///< an IOMMU in this process; moat_device_read and _write are its bus
    MOAT_BACKEND_VFIO = 1,    ///< Linux: iommufd where that is to be had, else type 1
    MOAT_BACKEND_TYPE1 = 2,   // Linux VFIO type 1
    MOAT_BACKEND_IOMMUFD = 3, ///< Linux iommufd
};

/// moat_config.level
enum {
    MOAT_LEVEL_GUARD = 0, ///< guard pages, and nothing that costs: neither labels nor misuse told
    MOAT_LEVEL_TRACK = 1, ///< who mapped what: faults are attributed, misuse is found
    MOAT_LEVEL_EXACT = 2, ///< to the byte: small buffers at the edge of a page
};

enum { MOAT_PLACEMENT_RIGHT = 0, MOAT_PLACEMENT_LEFT = 1 }; // where in its page, at exact

enum { MOAT_UNMAPPING_STRICT = 0, MOAT_UNMAPPING_DEFERRED = 1 }; // now, or until moat_flush

enum { MOAT_READ_ENVIRONMENT = 1 }; // moat_config.flags

/// who may do what: the device reads, writes, or both
enum {
    MOAT_TO_DEVICE = 0,
    MOAT_FROM_DEVICE = 1,
    MOAT_BIDIRECTIONAL = 2,
};

/// moat_fault.kind
enum {
    MOAT_FAULT_OVERFLOW = 0,  ///< past the end of a mapping
    MOAT_FAULT_UNDERFLOW = 1, ///< before its start
    MOAT_FAULT_CROSSING = 2,  ///< from one mapping into the next
    MOAT_FAULT_USE_AFTER_UNMAP = 3,
    MOAT_FAULT_PERMISSION = 4, ///< inside of a mapping that does not allow this access
    MOAT_FAULT_POISONED = 5,
    MOAT_FAULT_WILD = 6, ///< far from every mapping
    MOAT_FAULT_NEVER_MAPPED = 7,
    MOAT_FAULT_REFUSED = 8, ///< inside of a mapping that allows it: the IOMMU disagrees
    MOAT_FAULT_NOT_ATTACHED = 9,
    MOAT_FAULT_NO_ACCESS = 10, ///< an event of the IOMMU's own
};

enum {
    MOAT_ACCESS_UNKNOWN = 0,
    MOAT_ACCESS_READ = 1,
    MOAT_ACCESS_WRITE = 2,
    MOAT_ACCESS_EXECUTE = 3
};

/// moat_fault.precision: what iova and bytes say
enum {
    MOAT_PRECISION_NONE = 0,
    MOAT_PRECISION_EXACT = 1, ///< these bytes and no others
    MOAT_PRECISION_START = 2, ///< it began here
    MOAT_PRECISION_PAGE = 3,  ///< somewhere within, as hardware tells it
};

enum { MOAT_SIDE_INSIDE = 0, MOAT_SIDE_LEFT = 1, MOAT_SIDE_RIGHT = 2 };

/// moat_driver_error.kind
enum {
    MOAT_DRIVER_NOT_MAPPED = 0,
    MOAT_DRIVER_WRONG_SIZE = 1,
    MOAT_DRIVER_WRONG_DIRECTION = 2,
    MOAT_DRIVER_SYNC_OUTSIDE = 3,
    MOAT_DRIVER_CPU_WROTE = 4,       ///< the CPU changed a buffer while it was the device's
    MOAT_DRIVER_RED_ZONE = 5,        ///< something wrote beside a buffer, inside of its page
    MOAT_DRIVER_LEAK = 6,            ///< still mapped when its container was closed
    MOAT_DRIVER_MISSING_SYNC = 7,    ///< returned to the device before the CPU took its data
    MOAT_DRIVER_DOUBLE_MAPPING = 8,  ///< memory that another mapping has, and a device may write
    MOAT_DRIVER_NOT_ADDRESSABLE = 9, ///< maps memory that the program may not touch
    MOAT_DRIVER_FREED = 10,          ///< the memory was freed; no device reaches it any more
    /// Unmapped, but a device may still reach it: the invalidation failed. The address stays
    /// unused.
    MOAT_DRIVER_NOT_INVALIDATED = 11,
};

/// A mapping, living or past.
typedef struct moat_mapping {
    uint32_t size;
    int32_t direction;
    uint64_t iova;
    uint64_t bytes;
    uint64_t guard_before_bytes;
    uint64_t guard_after_bytes;
    const char* label;     // never null; lives as long as the container
    uint64_t unmaps_since; ///< of a past one: how many were undone after it
} moat_mapping;

/// A refused access, and what it strayed from. Pointers are null where there is nothing; they, and
/// the struct itself, live until the callback returns.
typedef struct moat_fault {
    uint32_t size;
    int32_t kind;
    int32_t access;
    int32_t precision;
    uint64_t iova;
    uint64_t bytes;
    int32_t side; ///< of the mapping in question
    int32_t reserved;
    uint64_t least_distance; ///< of the nearest byte touched outside from its edge, counted from 1;
    uint64_t most_distance;  // both are equal, but where precision is a page; 0: inside
    uint64_t bytes_outside;  // of the access; 0 where precision is not exact
    const moat_mapping* mapping; ///< the living one in question
    const moat_mapping* past;    // the one that was there
    const moat_mapping* next;    // of MOAT_FAULT_CROSSING: what it ran into
    const moat_mapping* left;    // the nearest living ones
    const moat_mapping* right;
    moat_device* device;       // null where none that is attached is known by `source`
    const char* source;        // "00:03.0", as the IOMMU knows it; "" where it does not say
    uint64_t faults_lost;      // just before this one
    const char* summary;       // one line without its end; "" where there is no memory for it
    const moat_report* report; ///< for moat_report_text and moat_report_json
} moat_fault;

/// What the caller did wrong. It lives as moat_fault does.
typedef struct moat_driver_error {
    uint32_t size;
    int32_t kind;
    uint64_t iova; ///< what the call named; of CPU_WROTE, RED_ZONE, MISSING_SYNC: the bytes
    uint64_t bytes;
    const moat_mapping* mapping; ///< that lives there, or that it was about
    const moat_mapping* past;    // of MOAT_DRIVER_NOT_MAPPED: the one that was there last
    const char* summary;
    const moat_report* report;
} moat_driver_error;

/// Called on the thread that found it, within one of this header's functions, with no lock held. A
/// callback may call every function here, its own container's among them, but moat_container_close
/// of that, and moat_device_detach of the device that is in the middle of an access: these
/// return MOAT_BUSY. It does not longjmp; what a C++ callback throws is caught, and the function
/// that caused the call returns MOAT_INTERNAL. Within free(), where AddressSanitizer finds that
/// mapped memory is freed, the thread's next function returns it.
typedef void (*moat_fault_callback)(void* context, const moat_fault* fault);
typedef void (*moat_driver_error_callback)(void* context, const moat_driver_error* error);

/// How a container is made; moat_config_init fills in what is usual. What decides, the last first:
/// the variable MOAT_OPTIONS where flags say so, `options`, the fields.
typedef struct moat_config {
    uint32_t size;
    int32_t backend;
    uint32_t flags;
    int32_t level;
    int32_t placement;
    int32_t unmapping;
    uint64_t guard_bytes; ///< unmapped bytes after each mapping, rounded up to pages; 0 is off
    uint64_t guard_before_bytes;
    uint64_t quarantine_bytes;    // unmapped addresses that are kept out of use
    uint64_t dma_mask;            // the last address that every device of it can send
    uint32_t history;             // past mappings that are remembered, 1 or more
    uint32_t stacks;              // of one mapping in so many the call stack is taken; 0: none
    uint32_t tables;              // soft: pages of 4 KiB for tables; each maps 2 MiB of small pages
    uint32_t reserved;            // 0
    const char* options;          // "level=exact:guard=64k", see moat_options_help; may be null
    moat_fault_callback on_fault; ///< null: the report goes to standard error
    moat_driver_error_callback on_driver_error; ///< the same
    void* context; ///< for both; what it points to outlives the container
} moat_config;

/// What a container can do.
typedef struct moat_limits {
    uint32_t size;
    int32_t backend; ///< the one in use: never MOAT_BACKEND_VFIO
    uint64_t page_bytes;
    uint64_t first_iova; ///< of the addresses that are mapped at
    uint64_t last_iova;
    int32_t level; ///< as it came to be, and so on
    int32_t unmapping;
    uint64_t guard_bytes;
    uint64_t guard_before_bytes;
} moat_limits;

/// MOAT_ABI_VERSION of the library.
MOAT_API uint32_t moat_abi_version(void);

/// "0.1.0"; a constant.
MOAT_API const char* moat_version(void);

/// "not found"; a constant, also for codes that there are not.
MOAT_API const char* moat_code_name(moat_code code);

/// "dma-buffer-overflow"; a constant, also for kinds that there are not.
MOAT_API const char* moat_fault_kind_name(int32_t kind);

/// All that `options` and MOAT_OPTIONS understand, a line each; a constant.
MOAT_API const char* moat_options_help(void);

/// Fills `config` with what is usual: soft, track, a guard of 4 KiB, the environment is not read.
/// `size` is the caller's sizeof(moat_config). Errors: MOAT_INVALID.
MOAT_API moat_code moat_config_init(moat_config* config, size_t size);

/// An empty container; the caller closes it. VFIO: needs rights to /dev/vfio and /dev/kmsg.
/// Errors: MOAT_INVALID (an option that there is not: the text says which there are, too),
/// MOAT_UNSUPPORTED, MOAT_OUT_OF_RANGE (the mask leaves nothing), MOAT_NO_MEMORY; of VFIO also
/// MOAT_NOT_FOUND, MOAT_REFUSED. Reads the environment only where flags say so.
MOAT_API MOAT_CHECKED moat_code moat_container_open(const moat_config* config,
                                                    moat_container** container, moat_error* error);

/// Detaches its devices, tells what is mapped still (MOAT_DRIVER_LEAK, from level track on), unmaps
/// it, and frees the container and its devices. No other thread uses them. Null is nothing to do.
/// Errors: MOAT_BUSY (called by a callback of it), after which it is open.
MOAT_API moat_code moat_container_close(moat_container* container, moat_error* error);

/// `limits->size` is the caller's. VFIO: known once a device is attached. Errors: MOAT_REFUSED.
MOAT_API moat_code moat_container_limits(moat_container* container, moat_limits* limits,
                                         moat_error* error);

/// Lets the function of PCI at `address` ("0000:00:03.0", or "00:03.0") reach what is mapped, and
/// nothing else. Soft: the caller plays its part. VFIO: one that vfio-pci has; it may master
/// the bus from then on, and is reset when it is detached. The device is the container's: it ends
/// with moat_device_detach or moat_container_close.
/// Errors: MOAT_NOT_FOUND, MOAT_BUSY (attached already), MOAT_MISMATCH (VFIO: it cannot share the
/// container's limits), MOAT_NO_MEMORY, MOAT_REFUSED, MOAT_UNSUPPORTED, MOAT_IO.
MOAT_API MOAT_CHECKED moat_code moat_device_attach(moat_container* container, const char* address,
                                                   moat_device** device, moat_error* error);

/// From the return on the device reaches nothing, and its handle is gone. No other thread uses it.
/// Errors: MOAT_BUSY (it is in the middle of an access; VFIO: it is the last one, and something is
/// mapped), after which it is attached.
MOAT_API moat_code moat_device_detach(moat_device* device, moat_error* error);

/// Soft: the device reads from, or writes to, [iova, iova + bytes). Bytes before the first that is
/// refused are transferred; `*done` (may be null) counts them, also on MOAT_REFUSED. A device is
/// used by one thread at a time; a callback that it caused may use it.
/// Errors: MOAT_REFUSED (by the IOMMU; the fault was told), MOAT_BUSY (another thread is at it),
/// MOAT_EMPTY, MOAT_UNSUPPORTED (VFIO).
MOAT_API moat_code moat_device_read(moat_device* device, uint64_t iova, void* into, size_t bytes,
                                    size_t* done, moat_error* error);
MOAT_API moat_code moat_device_write(moat_device* device, uint64_t iova, const void* from,
                                     size_t bytes, size_t* done, moat_error* error);

/// VFIO: where this process sees memory BAR `index`, as long as the device is attached.
/// Errors: MOAT_NOT_FOUND, MOAT_UNSUPPORTED (ports; soft devices have none), MOAT_IO.
MOAT_API moat_code moat_device_bar(moat_device* device, uint32_t index, void** memory,
                                   size_t* bytes, moat_error* error);

/// Maps [memory, memory + bytes) for the devices, with guards around it. Whole pages around it
/// become reachable; at level exact its bytes alone. The memory stays the caller's and stays there
/// until it is unmapped. `label` (may be null) is copied and kept as long as the container: few
/// different ones. `*iova` is what the device is told.
/// Errors: MOAT_EMPTY, MOAT_OVERFLOW, MOAT_NO_SPACE, MOAT_NO_MEMORY, MOAT_LIMIT, MOAT_REFUSED
/// (VFIO: before a device is attached), MOAT_IO; nothing is mapped then.
MOAT_API MOAT_CHECKED moat_code moat_map(moat_container* container, void* memory, size_t bytes,
                                         int32_t direction, const char* label, uint64_t* iova,
                                         moat_error* error);

/// Undoes moat_map, with the same size and direction. Strict: on return no device reaches the
/// memory. Deferred: once moat_flush has returned. Errors: MOAT_NOT_FOUND, MOAT_MISMATCH (from
/// level track on, and told to the callback): nothing is changed then. Level guard remembers
/// nothing: there a wrong size or direction is not found. MOAT_IO, after which the memory must be
/// taken for reachable.
MOAT_API moat_code moat_unmap(moat_container* container, uint64_t iova, size_t bytes,
                              int32_t direction, moat_error* error);

/// Around every look at a buffer while it is mapped: before the device looks at what the CPU wrote
/// to [iova + offset, + bytes), and before the CPU looks at what the device wrote. `iova` is what
/// moat_map gave. Errors: MOAT_NOT_FOUND, MOAT_OUT_OF_RANGE (told to the callback), MOAT_EMPTY,
/// MOAT_OVERFLOW.
MOAT_API moat_code moat_sync_for_device(moat_container* container, uint64_t iova, uint64_t offset,
                                        size_t bytes, moat_error* error);
MOAT_API moat_code moat_sync_for_cpu(moat_container* container, uint64_t iova, uint64_t offset,
                                     size_t bytes, moat_error* error);

/// Since MOAT_1.1. A piece of a scatter list: memory of the caller's.
typedef struct moat_piece {
    void* memory;
    size_t bytes;
} moat_piece;

/// Since MOAT_1.1. A segment of a list: its address for the device, and its size.
typedef struct moat_segment {
    uint64_t iova;
    uint64_t bytes;
} moat_segment;

/// Since MOAT_1.1. What a device can take in one segment: MOAT_SEGMENT_LIMITS_INIT, then changes.
typedef struct moat_segment_limits {
    uint32_t size;
    uint32_t reserved;       ///< 0
    uint64_t longest_bytes;  ///< of one segment
    uint64_t boundary_bytes; ///< no segment crosses a multiple of it, a power of two; 0: it may
    uint64_t guard_bytes;    ///< unmapped between pieces, rounded up to pages; 0: none
} moat_segment_limits;

#define MOAT_SEGMENT_LIMITS_INIT {(uint32_t)sizeof(moat_segment_limits), 0, UINT32_MAX, 0, 0}

/// Since MOAT_1.1. Maps `count` pieces into one range, in order, each on pages of its own. Whole
/// pages become reachable. `limits` may be null. `segments` has room for `count`; `*segment_count`
/// of them are written: neighbours are one segment where the limits allow. moat_unmap of `*iova`,
/// `*bytes` and the direction undoes it. moat_sync_* take the same range, or, with a guard between
/// the pieces, each segment. Errors: moat_map's; MOAT_OUT_OF_RANGE (a piece is longer than a
/// segment may be), MOAT_UNSUPPORTED (a boundary that is no power of two).
MOAT_API MOAT_CHECKED moat_code moat_map_list(moat_container* container, const moat_piece* pieces,
                                              size_t count, int32_t direction,
                                              const moat_segment_limits* limits, const char* label,
                                              moat_segment* segments, size_t* segment_count,
                                              uint64_t* iova, uint64_t* bytes, moat_error* error);

/// Since MOAT_1.1. Memory that driver and device share for long, such as a ring: zeroed whole
/// pages, mapped bidirectionally at a multiple of their size (rounded up to a power of two). It is
/// the container's until moat_free_coherent or moat_container_close. Errors: moat_map's.
MOAT_API MOAT_CHECKED moat_code moat_allocate_coherent(moat_container* container, size_t bytes,
                                                       const char* label, void** memory,
                                                       uint64_t* iova, moat_error* error);

/// Since MOAT_1.1. Unmaps what moat_allocate_coherent returned at `iova`, and frees it. Errors:
/// MOAT_NOT_FOUND (nothing is there, or it is unmapped already: then it is freed); MOAT_IO, after
/// which devices may reach the memory, and it is never freed.
MOAT_API moat_code moat_free_coherent(moat_container* container, uint64_t iova, moat_error* error);

/// Since MOAT_1.1. Peer to peer: maps whole pages of memory BAR `bar` of `peer` for the devices of
/// `container`. moat_unmap undoes it, before `peer` is detached. Errors: moat_map's;
/// MOAT_OUT_OF_RANGE (not inside of the BAR), MOAT_UNALIGNED, MOAT_NOT_FOUND (no such BAR),
/// MOAT_UNSUPPORTED (the backend cannot, or the BAR is not memory; soft devices have none).
MOAT_API MOAT_CHECKED moat_code moat_map_region(moat_container* container, moat_device* peer,
                                                uint32_t bar, uint64_t offset, uint64_t bytes,
                                                int32_t direction, const char* label,
                                                uint64_t* iova, moat_error* error);

/// Since MOAT_1.1. Takes bytes of one mapping from the devices until moat_unpoison or moat_unmap:
/// for sub-allocators. Errors: MOAT_UNSUPPORTED (below level exact; VFIO), MOAT_EMPTY,
/// MOAT_OVERFLOW, MOAT_NOT_FOUND (not inside of one mapping), MOAT_IO.
MOAT_API moat_code moat_poison(moat_container* container, uint64_t iova, uint64_t bytes,
                               moat_error* error);
MOAT_API moat_code moat_unpoison(moat_container* container, uint64_t iova, uint64_t bytes,
                                 moat_error* error);

/// Since MOAT_1.1. Enables up to `wanted` interrupt vectors, MSI-X or MSI; `*enabled` counts them.
/// Errors: MOAT_EMPTY, MOAT_UNSUPPORTED (the device has none), MOAT_LIMIT, MOAT_IO.
MOAT_API moat_code moat_device_enable_interrupts(moat_device* device, uint32_t wanted,
                                                 uint32_t* enabled, moat_error* error);

/// Since MOAT_1.1. `*raised` is 1 where `vector` was raised since the last call that gave 1, else
/// 0. Waits up to `longest_ms`. Errors: MOAT_OUT_OF_RANGE (it is not enabled).
MOAT_API moat_code moat_device_wait_for_interrupt(moat_device* device, uint32_t vector,
                                                  uint32_t longest_ms, int32_t* raised,
                                                  moat_error* error);

/// Since MOAT_1.1. Soft: the device raises an interrupt. Errors: MOAT_OUT_OF_RANGE (it is not
/// enabled), MOAT_UNSUPPORTED (VFIO).
MOAT_API moat_code moat_device_raise_interrupt(moat_device* device, uint32_t vector,
                                               moat_error* error);

/// On return no device reaches what was unmapped before the call.
MOAT_API moat_code moat_flush(moat_container* container, moat_error* error);

/// VFIO: tells the callback of the faults that the kernel has logged since the last call, and
/// counts them; `*lost` are those of which no line came. Both may be null. The devices' faults of a
/// soft container are told as they happen: this finds none. Errors: MOAT_IO.
MOAT_API moat_code moat_poll_faults(moat_container* container, uint64_t* told, uint64_t* lost,
                                    moat_error* error);

/// Writes the report into `buffer`, cut after room - 1 characters and ended by a zero; `*needed`
/// (may be null) is the room that all of it takes, the zero included. `buffer` may be null where
/// room is 0. Text: lines for a reader. JSON: one line without its end, docs/report_schema.md's
/// moat.fault/1 or moat.driver_error/1. `report` is the callback's. Errors: MOAT_NO_MEMORY.
MOAT_API moat_code moat_report_text(const moat_report* report, char* buffer, size_t room,
                                    size_t* needed, moat_error* error);
MOAT_API moat_code moat_report_json(const moat_report* report, char* buffer, size_t room,
                                    size_t* needed, moat_error* error);

// NOLINTEND(readability-identifier-naming,modernize-use-using)

#ifdef __cplusplus
} // extern "C"
#endif

#endif // MOAT_H
