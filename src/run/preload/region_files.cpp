// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// libc's functions that read and write descriptors, and fstat. The memory file of a descriptor
// keeps its position.
#include "run/preload/libc_names.hpp"
#include "run/preload/next.hpp"
#include "run/preload/own_stack.hpp"
#include "run/preload/process.hpp"
#include "run/region_transfer.hpp"

#include <cerrno>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

using namespace moat::run;

namespace {

int failure(int error) {
    errno = error;
    return -1;
}

/// The file of VFIO behind `descriptor`, or none.
[[nodiscard]] File file_of(int descriptor) {
    return descriptors().find(descriptor).file;
}

ssize_t result_of(std::int64_t answer) {
    return answer < 0 ? failure(static_cast<int>(-answer)) : static_cast<ssize_t>(answer);
}

ssize_t read_region(File file, void* into, std::size_t bytes, std::uint64_t offset) {
    const Inside inside;
    return result_of(read_region(session(), client(), file, reinterpret_cast<std::uint64_t>(into),
                                 bytes, offset));
}

ssize_t write_region(File file, const void* from, std::size_t bytes, std::uint64_t offset) {
    const Inside inside;
    return result_of(write_region(session(), client(), file, reinterpret_cast<std::uint64_t>(from),
                                  bytes, offset));
}

/// At the position of `descriptor`, which moves on.
template <class Transfer>
ssize_t at_position(int descriptor, Transfer transfer) {
    const off_t at = MOAT_NEXT(lseek)(descriptor, 0, SEEK_CUR);
    const ssize_t done = transfer(static_cast<std::uint64_t>(at));
    if (done > 0)
        (void)MOAT_NEXT(lseek)(descriptor, done, SEEK_CUR);
    return done;
}

/// One piece after the other, until one is not complete.
template <class Transfer>
ssize_t each_piece(const iovec* pieces, int count, off_t offset, Transfer transfer) {
    ssize_t done = 0;
    for (int i = 0; i < count; ++i) {
        const ssize_t more = transfer(pieces[i], static_cast<std::uint64_t>(offset + done));
        if (more < 0)
            return done != 0 ? done : more;
        done += more;
        if (static_cast<std::size_t>(more) != pieces[i].iov_len)
            break;
    }
    return done;
}

/// What Linux shows of a file of VFIO: a character device, numbered as in the tree of /sys.
template <class Stat>
int character_device(int descriptor, int result, Stat* into) {
    const File file = file_of(descriptor);
    if (result != 0 || file == File::none)
        return result;
    constexpr unsigned major_number = 511;
    const Inside inside;
    const auto device = session().device_of(file);
    into->st_mode = S_IFCHR | S_IRUSR | S_IWUSR;
    into->st_rdev = device ? makedev(major_number, *device) : makedev(10, 196);
    return 0;
}

} // namespace

MOAT_INTERPOSED ssize_t read(int descriptor, void* into, std::size_t bytes) {
    const File file = file_of(descriptor);
    if (file == File::none)
        return MOAT_NEXT(read)(descriptor, into, bytes);
    return at_position(descriptor,
                       [&](std::uint64_t at) { return read_region(file, into, bytes, at); });
}

MOAT_INTERPOSED ssize_t __read_chk(int descriptor, void* into, std::size_t bytes,
                                   std::size_t room) {
    return bytes <= room ? read(descriptor, into, bytes)
                         : MOAT_NEXT(__read_chk)(descriptor, into, bytes, room);
}

MOAT_INTERPOSED ssize_t write(int descriptor, const void* from, std::size_t bytes) {
    const File file = file_of(descriptor);
    if (file == File::none)
        return MOAT_NEXT(write)(descriptor, from, bytes);
    const Entry called(MOAT_CALLED_FROM);
    return at_position(descriptor,
                       [&](std::uint64_t at) { return write_region(file, from, bytes, at); });
}

/// VFIO's files have a position that only read and write move.
MOAT_INTERPOSED off_t lseek(int descriptor, off_t offset, int whence) noexcept {
    return file_of(descriptor) == File::none ? MOAT_NEXT(lseek)(descriptor, offset, whence)
                                             : failure(ESPIPE);
}

MOAT_ALIAS(lseek64, lseek);

MOAT_INTERPOSED ssize_t pread(int descriptor, void* into, std::size_t bytes, off_t offset) {
    const File file = file_of(descriptor);
    return file != File::none ? read_region(file, into, bytes, static_cast<std::uint64_t>(offset))
                              : MOAT_NEXT(pread)(descriptor, into, bytes, offset);
}

MOAT_ALIAS(pread64, pread);

MOAT_INTERPOSED ssize_t __pread_chk(int descriptor, void* into, std::size_t bytes, off_t offset,
                                    std::size_t room) {
    const File file = file_of(descriptor);
    return file != File::none && bytes <= room
               ? read_region(file, into, bytes, static_cast<std::uint64_t>(offset))
               : MOAT_NEXT(__pread_chk)(descriptor, into, bytes, offset, room);
}

MOAT_ALIAS(__pread64_chk, __pread_chk);

MOAT_INTERPOSED ssize_t pwrite(int descriptor, const void* from, std::size_t bytes, off_t offset) {
    const Entry called(MOAT_CALLED_FROM);
    const File file = file_of(descriptor);
    return file != File::none ? write_region(file, from, bytes, static_cast<std::uint64_t>(offset))
                              : MOAT_NEXT(pwrite)(descriptor, from, bytes, offset);
}

MOAT_ALIAS(pwrite64, pwrite);

MOAT_INTERPOSED ssize_t preadv(int descriptor, const iovec* pieces, int count, off_t offset) {
    const File file = file_of(descriptor);
    if (file == File::none)
        return MOAT_NEXT(preadv)(descriptor, pieces, count, offset);
    return each_piece(pieces, count, offset, [&](const iovec& piece, std::uint64_t at) {
        return read_region(file, piece.iov_base, piece.iov_len, at);
    });
}

MOAT_ALIAS(preadv64, preadv);

MOAT_INTERPOSED ssize_t pwritev(int descriptor, const iovec* pieces, int count, off_t offset) {
    const File file = file_of(descriptor);
    if (file == File::none)
        return MOAT_NEXT(pwritev)(descriptor, pieces, count, offset);
    const Entry called(MOAT_CALLED_FROM);
    return each_piece(pieces, count, offset, [&](const iovec& piece, std::uint64_t at) {
        return write_region(file, piece.iov_base, piece.iov_len, at);
    });
}

MOAT_ALIAS(pwritev64, pwritev);

MOAT_INTERPOSED int fstat(int descriptor, struct stat* into) noexcept {
    return character_device(descriptor, MOAT_NEXT(fstat)(descriptor, into), into);
}

MOAT_INTERPOSED int fstat64(int descriptor, struct stat64* into) noexcept {
    return character_device(descriptor, MOAT_NEXT(fstat64)(descriptor, into), into);
}

MOAT_INTERPOSED int __fxstat(int version, int descriptor, struct stat* into) {
    return character_device(descriptor, MOAT_NEXT(__fxstat)(version, descriptor, into), into);
}

MOAT_INTERPOSED int __fxstat64(int version, int descriptor, struct stat64* into) {
    return character_device(descriptor, MOAT_NEXT(__fxstat64)(version, descriptor, into), into);
}
