// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of virtio block devices: one queue and a request at a time.
// Source: Virtual I/O Device (VIRTIO) 1.2: 5.2 (block device).
#include "audit/driver.hpp"
#include "audit/drivers/virtio_pci.hpp"

#include <array>
#include <cstring>

namespace moat::audit {
namespace virtio_blk {

using virtio::Part;

constexpr std::uint64_t sector = 512;

struct Header {
    std::uint32_t kind;
    std::uint32_t reserved;
    std::uint64_t first_sector;
};

static_assert(sizeof(Header) == 16);

constexpr unsigned write_place = 1; ///< only it and `read` before it have a position
constexpr std::array<std::uint32_t, 4> kinds = {0, 1, 8, 4}; ///< by operation
constexpr ByteCount longest(512 * 4096);
constexpr std::array<Operation, 4> operations_of_block = {
    {on_medium("read", Content::loads, ByteCount(sector), longest),
     on_medium("write", Content::stores, ByteCount(sector), longest),
     {.name = "identify",
      .direction = Direction::from_device,
      .granule = ByteCount(20),
      .longest = ByteCount(20),
      .fills = ByteCount(1)}, // a text that ends with 0 if it is shorter
     {"flush", Direction::to_device, 0, ByteCount(1), ByteCount(0)}}};

class VirtioBlk final : public virtio::VirtioDriver {
  public:
    explicit VirtioBlk(const Seat& seat)
        : VirtioDriver("virtio-blk", operations_of_block, seat, virtio::Style::plain) {}

    [[nodiscard]] Result<Answer> do_run(const Request& request) override;

    Result<void> prepare_disk();

  private:
    Result<void> start();
    void post_request(const Request& request);

    virtio::Queue* requests_ = nullptr;
    Buffer header_{};
    Buffer status_{};
    bool running_ = false;
};

Result<void> VirtioBlk::prepare_disk() {
    constexpr std::uint64_t capacity_bytes = 8; // 5.2.4: its registers begin with the capacity
    MOAT_TRY(find_registers(capacity_bytes));
    set_medium(medium_of(own_registers().read64(0), ByteCount(sector)));
    MOAT_LET(requests_, create_queue(0));
    using enum Direction;
    MOAT_TRY(obtain({{header_, {"request header", to_device, ByteCount(sizeof(Header)), 3}},
                     {status_, {"status", from_device, ByteCount(1), 0}}}));
    MOAT_TRY(enable_interrupts(1));
    return start();
}

Result<void> VirtioBlk::start() {
    MOAT_TRY(start_device());
    running_ = true;
    return {};
}

/// 5.2.6: a header, the data, a byte of status.
void VirtioBlk::post_request(const Request& request) {
    const bool reads =
        operations_of_block.at(request.operation).direction == Direction::from_device;
    const Header header{.kind = kinds.at(request.operation),
                        .reserved = 0,
                        .first_sector = request.operation <= write_place ? request.position : 0};
    std::memcpy(header_.bytes.data(), &header, sizeof header);
    status_.bytes[0] = std::byte{0xff};
    const Part first{header_.iova, sizeof header};
    const Part last{status_.iova, 1, true};
    if (request.length == ByteCount(0))
        post(*requests_, std::array{first, last});
    else
        post(*requests_,
             std::array{first, Part{request.data, request.length.value(), reads}, last});
}

Result<Answer> VirtioBlk::do_run(const Request& request) {
    if (!running_)
        MOAT_TRY(start());
    post_request(request);
    MOAT_LET(const bool waited, wait_for(*requests_));
    if (!waited) {
        running_ = false;
        return no_answer();
    }
    const auto code = static_cast<std::uint64_t>(status_.bytes[0]);
    return Answer{code == 0 ? Verdict::success : Verdict::failure, code};
}

} // namespace virtio_blk

Result<std::unique_ptr<Driver>> start_virtio_blk(const Seat& seat) {
    auto driver = std::make_unique<virtio_blk::VirtioBlk>(seat);
    MOAT_TRY(driver->prepare_disk());
    return driver;
}

} // namespace moat::audit
