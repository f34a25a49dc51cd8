// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat for C: guard pages around the buffers that a device reaches. For C11 and C++; link -lmoat.
// libmoat.so exports the functions of this header only. moat.hpp is the same API for C++.
// docs/design/api.md gives the reasons.
#ifndef MOAT_H
#define MOAT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// C's names and type declarations:
// NOLINTBEGIN(readability-identifier-naming,modernize-use-using)

/// The number in the soname: libmoat.so.1 serves every program built with an earlier header. Later
/// functions have the symbol version MOAT_1.1.
///
/// Structs: the caller sets `size` to sizeof; the library reads and writes no byte past it. A
/// struct shorter than its first version is `MOAT_INVALID`. One longer than this library's is
/// `MOAT_UNSUPPORTED` unless the rest is zeros. In structs from the library, `size` shows which
/// fields exist.
///
/// Functions return a code and fill `*error` unless it is null. A wrong argument never ends the
/// program, except a pointer to no such object, and memory that is freed while a device reaches it.
/// Functions throw no exceptions. They write out parameters only on success, unless stated.
///
/// Threads: any thread may call any function at any time, unless stated.
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
    MOAT_UNALIGNED = 2,    ///< not a multiple of the required size
    MOAT_OUT_OF_RANGE = 3, ///< beyond the device, the IOMMU or the mapping
    MOAT_OVERFLOW = 4,     ///< start + length does not fit into 64 bits
    MOAT_OVERLAP = 5,      ///< the range overlaps a mapping
    MOAT_NOT_FOUND = 6,    ///< nothing is mapped there: often a second unmap
    MOAT_MISMATCH = 7,     ///< the mapping there has another size or direction
    MOAT_REFUSED = 8,      ///< not allowed: rights, the order of calls, or the IOMMU
    MOAT_UNSUPPORTED = 9,  ///< not supported by this backend or library
    MOAT_NO_MEMORY = 10,
    MOAT_NO_SPACE = 11, ///< no free range of device addresses fits
    MOAT_LIMIT = 12,    ///< a quota is used up
    MOAT_BUSY = 13,     ///< in use now, by another thread or by the caller's own callback
    MOAT_IO = 14,       ///< the device or the operating system failed
    MOAT_INVALID = 15,  ///< a null pointer, an unknown number, a struct of unknown size
    MOAT_INTERNAL = 16, ///< a defect of libmoat, or an exception of a callback
};

/// Initialise it once, `moat_error error = MOAT_ERROR_INIT;`, and reuse it.
typedef struct moat_error {
    uint32_t size;
    moat_code code;
    char text[248]; ///< one line that names the values, cut at its end; "" for MOAT_OK
} moat_error;

#define MOAT_ERROR_INIT {(uint32_t)sizeof(moat_error), 0, ""}

typedef struct moat_container moat_container; // device addresses and their mappings
typedef struct moat_device moat_device;       // a PCI function that reaches them
typedef struct moat_report moat_report;       // a report of one fault or error

/// moat_config.backend
enum {
    MOAT_BACKEND_SOFT = 0,    ///< an IOMMU in this process; moat_device_read and _write are its bus
    MOAT_BACKEND_VFIO = 1,    ///< Linux: iommufd if available, otherwise type 1
    MOAT_BACKEND_TYPE1 = 2,   // Linux VFIO type 1
    MOAT_BACKEND_IOMMUFD = 3, ///< Linux iommufd
};

/// moat_config.level
enum {
    MOAT_LEVEL_GUARD = 0, ///< guard pages only: no labels, no checks of misuse
    MOAT_LEVEL_TRACK = 1, ///< records mappings: attributes faults, detects misuse
    MOAT_LEVEL_EXACT = 2, ///< to the byte: small buffers at the edge of a page
};

enum { MOAT_PLACEMENT_RIGHT = 0, MOAT_PLACEMENT_LEFT = 1 }; // in its page, at level exact

enum { MOAT_UNMAPPING_STRICT = 0, MOAT_UNMAPPING_DEFERRED = 1 }; // at once, or by moat_flush

enum { MOAT_READ_ENVIRONMENT = 1 }; // moat_config.flags

/// The device reads, writes, or both.
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
    MOAT_FAULT_PERMISSION = 4, ///< inside a mapping that does not allow this access
    MOAT_FAULT_POISONED = 5,
    MOAT_FAULT_WILD = 6, ///< far from every mapping
    MOAT_FAULT_NEVER_MAPPED = 7,
    MOAT_FAULT_REFUSED = 8, ///< inside a mapping that allows it: the IOMMU disagrees
    MOAT_FAULT_NOT_ATTACHED = 9,
    MOAT_FAULT_NO_ACCESS = 10, ///< an event of the IOMMU itself
};

enum {
    MOAT_ACCESS_UNKNOWN = 0,
    MOAT_ACCESS_READ = 1,
    MOAT_ACCESS_WRITE = 2,
    MOAT_ACCESS_EXECUTE = 3
};

/// moat_fault.precision: the meaning of iova and bytes
enum {
    MOAT_PRECISION_NONE = 0,
    MOAT_PRECISION_EXACT = 1, ///< these bytes and no others
    MOAT_PRECISION_START = 2, ///< it began here
    MOAT_PRECISION_PAGE = 3,  ///< somewhere within this page
};

enum { MOAT_SIDE_INSIDE = 0, MOAT_SIDE_LEFT = 1, MOAT_SIDE_RIGHT = 2 };

/// moat_driver_error.kind
enum {
    MOAT_DRIVER_NOT_MAPPED = 0,
    MOAT_DRIVER_WRONG_SIZE = 1,
    MOAT_DRIVER_WRONG_DIRECTION = 2,
    MOAT_DRIVER_SYNC_OUTSIDE = 3,
    MOAT_DRIVER_CPU_WROTE = 4,       ///< the CPU changed a buffer that the device owned
    MOAT_DRIVER_RED_ZONE = 5,        ///< something wrote beside a buffer, in its page
    MOAT_DRIVER_LEAK = 6,            ///< still mapped when its container was closed
    MOAT_DRIVER_MISSING_SYNC = 7,    ///< returned to the device before the CPU took its data
    MOAT_DRIVER_DOUBLE_MAPPING = 8,  ///< maps memory of another mapping; a device may write it
    MOAT_DRIVER_NOT_ADDRESSABLE = 9, ///< maps memory that the program may not touch
    MOAT_DRIVER_FREED = 10,          ///< the memory was freed; devices lost access
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
    uint64_t unmaps_since; ///< of a past mapping: how many were unmapped after it
} moat_mapping;

/// A refused access and the mapping that it strayed from. Absent objects are null pointers. The
/// struct and its pointers are valid until the callback returns.
typedef struct moat_fault {
    uint32_t size;
    int32_t kind;
    int32_t access;
    int32_t precision;
    uint64_t iova;
    uint64_t bytes;
    int32_t side; ///< of the mapping in question
    int32_t reserved;
    uint64_t least_distance;     ///< of the nearest byte outside, from 1 at the edge; 0: inside
    uint64_t most_distance;      // equal unless precision is a page
    uint64_t bytes_outside;      // of the access; 0 unless precision is exact
    const moat_mapping* mapping; ///< the live mapping in question
    const moat_mapping* past;    // the past mapping there
    const moat_mapping* next;    // of MOAT_FAULT_CROSSING: the mapping that it reached
    const moat_mapping* left;    // the nearest live mappings
    const moat_mapping* right;
    moat_device* device;       // null unless an attached device has this `source`
    const char* source;        // "00:03.0", as the IOMMU reports it; "" if it does not
    uint64_t faults_lost;      // just before this one
    const char* summary;       // one line without its end; "" if memory is exhausted
    const moat_report* report; ///< for moat_report_text and moat_report_json
} moat_fault;

/// A driver's error. Valid as long as moat_fault.
typedef struct moat_driver_error {
    uint32_t size;
    int32_t kind;
    uint64_t iova; ///< of the call; for CPU_WROTE, RED_ZONE, MISSING_SYNC: the bytes
    uint64_t bytes;
    const moat_mapping* mapping; ///< the mapping there, or the one concerned
    const moat_mapping* past;    // of MOAT_DRIVER_NOT_MAPPED: the last mapping there
    const char* summary;
    const moat_report* report;
} moat_driver_error;

/// The thread that found the fault or error calls it, within a function of this header, and holds
/// no lock. A callback may call every function here. Two return MOAT_BUSY: moat_container_close of
/// its own container, and moat_device_detach of a device in the middle of an access. A callback
/// must not longjmp. If it throws, the function that caused the call returns MOAT_INTERNAL. Within
/// free(), where AddressSanitizer detects that mapped memory is freed, the thread's next function
/// returns it.
typedef void (*moat_fault_callback)(void* context, const moat_fault* fault);
typedef void (*moat_driver_error_callback)(void* context, const moat_driver_error* error);

/// The configuration of a container; moat_config_init sets the defaults. `options` overrides the
/// fields; the variable MOAT_OPTIONS, with MOAT_READ_ENVIRONMENT in `flags`, overrides both.
typedef struct moat_config {
    uint32_t size;
    int32_t backend;
    uint32_t flags;
    int32_t level;
    int32_t placement;
    int32_t unmapping;
    uint64_t guard_bytes; ///< unmapped bytes after each mapping, rounded up to pages; 0 is off
    uint64_t guard_before_bytes;
    uint64_t quarantine_bytes;    // unmapped address space that stays unused
    uint64_t dma_mask;            // the last address that every device of it can send
    uint32_t history;             // number of past mappings to remember, 1 or more
    uint32_t stacks;              // records the call stack of one mapping in so many; 0: none
    uint32_t tables;              // soft: pages of 4 KiB for tables; each maps 2 MiB of small pages
    uint32_t reserved;            // 0
    const char* options;          // "level=exact:guard=64k", see moat_options_help; may be null
    moat_fault_callback on_fault; ///< null: the report goes to standard error
    moat_driver_error_callback on_driver_error; ///< the same
    void* context;                              ///< for both; its object outlives the container
} moat_config;

/// The limits of a container.
typedef struct moat_limits {
    uint32_t size;
    int32_t backend; ///< the one in use: never MOAT_BACKEND_VFIO
    uint64_t page_bytes;
    uint64_t first_iova; ///< the first address that can be mapped
    uint64_t last_iova;
    int32_t level; ///< this and the fields below: in effect
    int32_t unmapping;
    uint64_t guard_bytes;
    uint64_t guard_before_bytes;
} moat_limits;

/// Returns the MOAT_ABI_VERSION of the library.
MOAT_API uint32_t moat_abi_version(void);

/// Returns a constant, such as "0.1.0".
MOAT_API const char* moat_version(void);

/// Returns a constant, such as "not found"; also for unknown codes.
MOAT_API const char* moat_code_name(moat_code code);

/// Returns a constant, such as "dma-buffer-overflow"; also for unknown kinds.
MOAT_API const char* moat_fault_kind_name(int32_t kind);

/// Returns a constant: one line for each option of `options` and MOAT_OPTIONS.
MOAT_API const char* moat_options_help(void);

/// Sets the defaults: soft, level track, a guard of 4 KiB, without the environment.
/// `size` is the caller's sizeof(moat_config). Errors: MOAT_INVALID.
MOAT_API moat_code moat_config_init(moat_config* config, size_t size);

/// Opens an empty container; the caller closes it. VFIO needs rights to /dev/vfio and /dev/kmsg.
/// Reads the environment only with MOAT_READ_ENVIRONMENT.
/// Errors: MOAT_INVALID (an unknown option: the text lists the valid ones), MOAT_UNSUPPORTED,
/// MOAT_OUT_OF_RANGE (the mask leaves no address), MOAT_NO_MEMORY; VFIO: also MOAT_NOT_FOUND,
/// MOAT_REFUSED.
MOAT_API MOAT_CHECKED moat_code moat_container_open(const moat_config* config,
                                                    moat_container** container, moat_error* error);

/// Detaches its devices, reports and unmaps what is still mapped (MOAT_DRIVER_LEAK, from level
/// track on), and frees the container and its devices. No other thread may use them. Null has no
/// effect. Errors: MOAT_BUSY (called by its own callback); the container stays open.
MOAT_API moat_code moat_container_close(moat_container* container, moat_error* error);

/// Writes the limits; the caller sets `limits->size`. Errors: MOAT_REFUSED (VFIO: no device is
/// attached yet).
MOAT_API moat_code moat_container_limits(moat_container* container, moat_limits* limits,
                                         moat_error* error);

/// Attaches the PCI function at `address` ("0000:00:03.0" or "00:03.0"): it reaches what is mapped
/// and nothing else. Soft: the caller plays the device. VFIO: the function is bound to vfio-pci; it
/// may master the bus from now on, and detaching resets it. The container owns the device, until
/// moat_device_detach or moat_container_close.
/// Errors: MOAT_NOT_FOUND, MOAT_BUSY (attached already), MOAT_MISMATCH (VFIO: it cannot share the
/// container's limits), MOAT_NO_MEMORY, MOAT_REFUSED, MOAT_UNSUPPORTED, MOAT_IO.
MOAT_API MOAT_CHECKED moat_code moat_device_attach(moat_container* container, const char* address,
                                                   moat_device** device, moat_error* error);

/// Detaches the device: on return it reaches nothing and its handle is invalid. No other thread may
/// use it. Errors: MOAT_BUSY (it is in the middle of an access; VFIO: it is the last device, and
/// something is mapped); the device stays attached.
MOAT_API moat_code moat_device_detach(moat_device* device, moat_error* error);

/// Soft: the device reads from, or writes to, [iova, iova + bytes). The bytes before the first
/// refused one are transferred; `*done` (may be null) counts them, also on MOAT_REFUSED. One thread
/// at a time uses a device; a callback that it caused may use it, too.
/// Errors: MOAT_REFUSED (by the IOMMU, and reported), MOAT_BUSY (another thread uses it),
/// MOAT_EMPTY, MOAT_UNSUPPORTED (VFIO).
MOAT_API moat_code moat_device_read(moat_device* device, uint64_t iova, void* into, size_t bytes,
                                    size_t* done, moat_error* error);
MOAT_API moat_code moat_device_write(moat_device* device, uint64_t iova, const void* from,
                                     size_t bytes, size_t* done, moat_error* error);

/// VFIO: returns memory BAR `index`, mapped in this process while the device is attached.
/// Errors: MOAT_NOT_FOUND, MOAT_UNSUPPORTED (ports; soft devices have none), MOAT_IO.
MOAT_API moat_code moat_device_bar(moat_device* device, uint32_t index, void** memory,
                                   size_t* bytes, moat_error* error);

/// Maps [memory, memory + bytes) for the devices, with guards around it. Its whole pages become
/// reachable; at level exact only its bytes. The caller keeps the memory until it is unmapped. The
/// container copies `label` (may be null) and keeps it: use few different ones. `*iova` is the
/// device's address of the memory.
/// Errors: MOAT_EMPTY, MOAT_OVERFLOW, MOAT_NO_SPACE, MOAT_NO_MEMORY, MOAT_LIMIT, MOAT_REFUSED
/// (VFIO: before a device is attached), MOAT_IO; an error maps nothing.
MOAT_API MOAT_CHECKED moat_code moat_map(moat_container* container, void* memory, size_t bytes,
                                         int32_t direction, const char* label, uint64_t* iova,
                                         moat_error* error);

/// Unmaps a mapping of moat_map, with the same size and direction. Strict: on return no device
/// reaches the memory. Deferred: after the next moat_flush. Errors: MOAT_NOT_FOUND, MOAT_MISMATCH
/// (both from level track on, and reported), which change nothing; level guard does not detect a
/// wrong size or direction. MOAT_IO: devices may still reach the memory.
MOAT_API moat_code moat_unmap(moat_container* container, uint64_t iova, size_t bytes,
                              int32_t direction, moat_error* error);

/// Gives [iova + offset, + bytes) of a mapping to the device, or to the CPU: call it before the
/// device reads what the CPU wrote, and before the CPU reads what the device wrote. `iova` is from
/// moat_map. Errors: MOAT_NOT_FOUND, MOAT_OUT_OF_RANGE (both reported), MOAT_EMPTY, MOAT_OVERFLOW.
MOAT_API moat_code moat_sync_for_device(moat_container* container, uint64_t iova, uint64_t offset,
                                        size_t bytes, moat_error* error);
MOAT_API moat_code moat_sync_for_cpu(moat_container* container, uint64_t iova, uint64_t offset,
                                     size_t bytes, moat_error* error);

/// Since MOAT_1.1. A piece of a scatter list, in the caller's memory.
typedef struct moat_piece {
    void* memory;
    size_t bytes;
} moat_piece;

/// Since MOAT_1.1. A segment of a list: its address for the device, and its size.
typedef struct moat_segment {
    uint64_t iova;
    uint64_t bytes;
} moat_segment;

/// Since MOAT_1.1. A device's limits of one segment; begin with MOAT_SEGMENT_LIMITS_INIT.
typedef struct moat_segment_limits {
    uint32_t size;
    uint32_t reserved;       ///< 0
    uint64_t longest_bytes;  ///< of one segment
    uint64_t boundary_bytes; ///< a power of two that no segment crosses a multiple of; 0: none
    uint64_t guard_bytes;    ///< unmapped between pieces, rounded up to pages; 0: none
} moat_segment_limits;

#define MOAT_SEGMENT_LIMITS_INIT {(uint32_t)sizeof(moat_segment_limits), 0, UINT32_MAX, 0, 0}

/// Since MOAT_1.1. Maps `count` pieces into one range, in order, each on its own whole pages, which
/// become reachable. `limits` may be null. `segments` has room for `count`; the function writes
/// `*segment_count` of them, and joins neighbours where the limits allow. Unmap it by moat_unmap
/// with `*iova`, `*bytes` and the direction. moat_sync_* take the same range or, with a guard
/// between the pieces, each segment. Errors: moat_map's; MOAT_OUT_OF_RANGE (a piece is longer than
/// a segment may be), MOAT_UNSUPPORTED (a boundary that is not a power of two).
MOAT_API MOAT_CHECKED moat_code moat_map_list(moat_container* container, const moat_piece* pieces,
                                              size_t count, int32_t direction,
                                              const moat_segment_limits* limits, const char* label,
                                              moat_segment* segments, size_t* segment_count,
                                              uint64_t* iova, uint64_t* bytes, moat_error* error);

/// Since MOAT_1.1. Allocates memory that driver and device share for long, such as a ring: zeroed
/// whole pages, mapped bidirectionally at a multiple of their size (rounded up to a power of two).
/// The container owns it until moat_free_coherent or moat_container_close. Errors: moat_map's.
MOAT_API MOAT_CHECKED moat_code moat_allocate_coherent(moat_container* container, size_t bytes,
                                                       const char* label, void** memory,
                                                       uint64_t* iova, moat_error* error);

/// Since MOAT_1.1. Unmaps and frees the memory that moat_allocate_coherent returned at `iova`.
/// Errors: MOAT_NOT_FOUND (no such memory, or it was already unmapped and is freed now); MOAT_IO:
/// devices may still reach the memory, which is never freed.
MOAT_API moat_code moat_free_coherent(moat_container* container, uint64_t iova, moat_error* error);

/// Since MOAT_1.1. Peer to peer: maps whole pages of memory BAR `bar` of `peer` for the devices of
/// `container`. Unmap them by moat_unmap before `peer` is detached. Errors: moat_map's;
/// MOAT_OUT_OF_RANGE (not inside the BAR), MOAT_UNALIGNED, MOAT_NOT_FOUND (no such BAR),
/// MOAT_UNSUPPORTED (the backend cannot, or the BAR is not memory; soft devices have none).
MOAT_API MOAT_CHECKED moat_code moat_map_region(moat_container* container, moat_device* peer,
                                                uint32_t bar, uint64_t offset, uint64_t bytes,
                                                int32_t direction, const char* label,
                                                uint64_t* iova, moat_error* error);

/// Since MOAT_1.1. Blocks the devices' access to bytes of one mapping until moat_unpoison or
/// moat_unmap: for sub-allocators. Errors: MOAT_UNSUPPORTED (below level exact; VFIO), MOAT_EMPTY,
/// MOAT_OVERFLOW, MOAT_NOT_FOUND (not inside one mapping), MOAT_IO.
MOAT_API moat_code moat_poison(moat_container* container, uint64_t iova, uint64_t bytes,
                               moat_error* error);
MOAT_API moat_code moat_unpoison(moat_container* container, uint64_t iova, uint64_t bytes,
                                 moat_error* error);

/// Since MOAT_1.1. Enables up to `wanted` interrupt vectors, MSI-X or MSI; `*enabled` counts them.
/// Errors: MOAT_EMPTY, MOAT_UNSUPPORTED (the device has none), MOAT_LIMIT, MOAT_IO.
MOAT_API moat_code moat_device_enable_interrupts(moat_device* device, uint32_t wanted,
                                                 uint32_t* enabled, moat_error* error);

/// Since MOAT_1.1. Waits up to `longest_ms` for `vector`. `*raised` is 1 if it was raised since the
/// last call that set 1, otherwise 0. Errors: MOAT_OUT_OF_RANGE (it is not enabled).
MOAT_API moat_code moat_device_wait_for_interrupt(moat_device* device, uint32_t vector,
                                                  uint32_t longest_ms, int32_t* raised,
                                                  moat_error* error);

/// Since MOAT_1.1. Soft: the device raises an interrupt. Errors: MOAT_OUT_OF_RANGE (it is not
/// enabled), MOAT_UNSUPPORTED (VFIO).
MOAT_API moat_code moat_device_raise_interrupt(moat_device* device, uint32_t vector,
                                               moat_error* error);

/// On return no device reaches what was unmapped before the call.
MOAT_API moat_code moat_flush(moat_container* container, moat_error* error);

/// VFIO: reports the faults that the kernel has logged since the last call. `*told` counts them,
/// `*lost` those that the kernel did not log; both may be null. A soft container reports faults as
/// they happen, so this finds none. Errors: MOAT_IO.
MOAT_API moat_code moat_poll_faults(moat_container* container, uint64_t* told, uint64_t* lost,
                                    moat_error* error);

/// Writes the report into `buffer`: at most room - 1 characters, then a zero. `*needed` (may be
/// null) is the room for the whole report with its zero. `buffer` may be null if room is 0. Text:
/// lines for a reader. JSON: one line without its end, moat.fault/1 or moat.driver_error/1
/// (docs/report_schema.md). `report` is from a callback. Errors: MOAT_NO_MEMORY.
MOAT_API moat_code moat_report_text(const moat_report* report, char* buffer, size_t room,
                                    size_t* needed, moat_error* error);
MOAT_API moat_code moat_report_json(const moat_report* report, char* buffer, size_t room,
                                    size_t* needed, moat_error* error);

// NOLINTEND(readability-identifier-naming,modernize-use-using)

#ifdef __cplusplus
} // extern "C"
#endif

#endif // MOAT_H
