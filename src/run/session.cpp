// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/session.hpp"

#include "core/parse.hpp"
#include "run/address_space.hpp"
#include "run/clock.hpp"
#include "run/device_bus.hpp"
#include "run/device_kinds.hpp"
#include "run/findings.hpp"
#include "run/recorder.hpp"
#include "run/tally.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace moat::run {

using machine::soft::Face;
using machine::soft::InterruptKind;

namespace {

using namespace std::chrono_literals;

/// How long an idle device sleeps before it looks for work that became due.
constexpr auto idle_time = 1ms;
/// How long it stays awake for the program's next store: a wake-up costs as much as the store.
constexpr auto awake_time = 50us;

[[nodiscard]] DeviceShape shape_of(const Face& face, unsigned group) {
    DeviceShape shape{.address = face.info().address, .group = group};
    shape.msix_region = face.msix_bar().value_or(~0U);
    for (unsigned region = 0; region != Face::region_count; ++region)
        shape.regions[region] = face.region(region);
    for (unsigned kind = 0; kind != Face::interrupt_kinds; ++kind)
        shape.interrupts[kind] = face.interrupts(static_cast<InterruptKind>(kind));
    return shape;
}

[[nodiscard]] std::optional<unsigned> number_after(std::string_view text, std::string_view prefix) {
    if (!text.starts_with(prefix))
        return std::nullopt;
    text.remove_prefix(prefix.size());
    return number_in<unsigned>(text);
}

} // namespace

/// A device, its bus, and what VFIO says of it.
struct Session::Slot {
    Slot(const DeviceChoice& choice, const Injection& injection, const std::string& folder,
         Client& client, Findings& findings, Recorder& recorder, Tally& tally)
        : kind(choice.kind), address(machine::to_string(choice.address)),
          device(make_device(choice, injection, folder)),
          bus(*device.face, kind + ' ' + address, client, findings, recorder, tally) {
        device.model->report_to([this](const auto& remark) { bus.remark(remark); });
    }

    std::string kind;
    std::string address;
    SoftDevice device;
    DeviceBus bus;
    Space space = Space::none;
};

class Session::State final : Effects {
  public:
    State(const Options& options, Client& client)
        : client_(client), api_(options.api), tally_(options.folder),
          recorder_(options.record ? in_folder(options, recording_file) : "", symbolise_),
          findings_(
              in_folder(options, findings_file), tally_.get(), symbolise_,
              [this](std::string_view text) { client_.print(text); }, client.process()),
          kernel_(make_slots(options), limits_of(options), *this) {}

    virtual ~State() { stop(); }

    [[nodiscard]] Answer open(std::string_view path) {
        const std::lock_guard lock(mutex_);
        if (path == "/dev/iommu")
            return api_ == Api::type1 ? Answer{.value = -ENODEV} : kernel_.open_iommufd();
        if (path.starts_with("/dev/vfio/devices/") ? api_ == Api::type1 : api_ == Api::iommufd)
            return {}; // the tree has no such file
        if (path == "/dev/vfio/vfio")
            return kernel_.open_container();
        if (const auto device = number_after(path, "/dev/vfio/devices/vfio"))
            return *device < slots_.size() ? began(kernel_.open_device(*device)) : Answer{};
        if (const auto group = number_after(path, "/dev/vfio/"))
            return kernel_.open_group(*group);
        return {};
    }

    void close(File file) {
        const std::lock_guard lock(mutex_);
        event_.reset();
        kernel_.close(file);
    }

    [[nodiscard]] Answer ioctl(File file, unsigned long request, std::uint64_t argument) {
        std::array<std::byte, 64> small{};
        std::span<std::byte> copy;
        std::size_t bytes = VfioKernel::argument_bytes(request, {});
        if (bytes != 0) {
            copy = std::span(small).first(client_.read(argument, std::span(small).first(bytes)));
            bytes = VfioKernel::argument_bytes(request, copy);
        }
        if (bytes > small.size() && copy.size() == small.size()) [[unlikely]]
            return large_ioctl(file, request, argument, bytes);
        const auto before = small;
        copy = copy.first(std::min(bytes, copy.size()));
        const Answer answer = serve(file, request, argument, copy);
        return std::memcmp(before.data(), small.data(), small.size()) == 0
                   ? answer
                   : write_back(answer, argument, before, copy);
    }

    /// The place of an offset in a device file, inside a region or not.
    [[nodiscard]] std::optional<Window> place(File file, std::uint64_t offset) {
        const std::lock_guard lock(mutex_);
        const auto device = kernel_.device_of(file);
        const std::uint64_t region = offset >> region_shift;
        if (!device || region >= Face::region_count)
            return std::nullopt;
        return Window{.device = *device,
                      .region = static_cast<unsigned>(region),
                      .offset = offset & ((std::uint64_t{1} << region_shift) - 1)};
    }

    [[nodiscard]] bool may_map(const Window& at, std::uint64_t bytes) {
        const std::lock_guard lock(mutex_);
        const Face::Region region = slots_[at.device]->device.face->region(at.region);
        return region.mappable && bytes != 0 && at.offset < region.size.value() &&
               bytes <= region.size.value() - at.offset;
    }

    [[nodiscard]] bool load(const Window& at, std::span<std::byte> into) {
        const std::lock_guard lock(mutex_);
        ++tally_.get().register_accesses;
        return slots_[at.device]->device.face->read(at.region, at.offset, into);
    }

    [[nodiscard]] bool store(const Window& at, std::span<const std::byte> from) {
        std::unique_lock lock(mutex_);
        ++tally_.get().register_accesses;
        event_.reset();
        Slot& slot = *slots_[at.device];
        slot.bus.tell(event());
        const bool done = slot.device.face->write(at.region, at.offset, from);
        has_work_ = true;
        const bool wakes = std::exchange(sleeps_, false);
        lock.unlock();
        if (wakes)
            work_.notify_one();
        return done;
    }

    /// Linux: EIO, from files; a load gets all ones.
    [[nodiscard]] bool is_lost(const Window& at) {
        const std::lock_guard lock(mutex_);
        return slots_[at.device]->device.face->needs_memory_enabled(at.region);
    }

    void stop() {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
            work_.notify_all();
        }
        if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id())
            thread_.join();
        const std::lock_guard lock(mutex_);
        recorder_.flush();
        count_misdeeds();
        for (const auto& slot : slots_)
            slot->bus.count_untaken();
    }

  private:
    static constexpr unsigned region_shift = 40;
    static constexpr std::uint64_t page_bytes = 4096;

    [[nodiscard]] std::vector<DeviceShape> make_slots(const Options& options) {
        std::vector<DeviceShape> shapes;
        for (const DeviceChoice& each : options.devices) {
            slots_.push_back(std::make_unique<Slot>(each, options.inject, options.folder, client_,
                                                    findings_, recorder_, tally_.get()));
            shapes.push_back(shape_of(*slots_.back()->device.face, each.group()));
        }
        return shapes;
    }

    /// Empty without a folder.
    [[nodiscard]] static std::string in_folder(const Options& options, std::string_view file) {
        return options.folder.empty() ? "" : options.folder + '/' + std::string(file);
    }

    [[nodiscard]] static VfioLimits limits_of(const Options& options) {
        VfioLimits limits;
        limits.entries = options.limits.entries;
        limits.locked = ByteCount(options.limits.locked);
        limits.aperture = options.limits.aperture();
        limits.fail_map = options.fail_map;
        limits.fail_errno = options.fail_errno;
        return limits;
    }

    /// An ioctl whose argument has `bytes` bytes.
    [[nodiscard, gnu::noinline]] Answer large_ioctl(File file, unsigned long request,
                                                    std::uint64_t argument, std::size_t bytes) {
        std::vector<std::byte> large(bytes);
        const auto copy = std::span(large).first(client_.read(argument, large));
        const std::vector<std::byte> before = large;
        const Answer answer = serve(file, request, argument, copy);
        return std::memcmp(before.data(), large.data(), large.size()) == 0
                   ? answer
                   : write_back(answer, argument, before, copy);
    }

    /// `copy`: the argument's bytes, as far as the program has them.
    [[nodiscard]] Answer serve(File file, unsigned long request, std::uint64_t argument,
                               std::span<std::byte> copy) {
        const std::lock_guard lock(mutex_);
        event_.reset();
        const Answer answer = kernel_.request(file, request, argument, copy);
        if (answer.opened != File::none && kernel_.device_of(answer.opened))
            return began(answer);
        return answer;
    }

    /// Writes what of the argument differs from `before`, and nothing else: the program may own
    /// what follows a short argument. Something differs.
    [[nodiscard, gnu::noinline]] Answer write_back(Answer answer, std::uint64_t argument,
                                                   std::span<const std::byte> before,
                                                   std::span<const std::byte> copy) {
        before = before.first(copy.size());
        const auto first = std::ranges::mismatch(before, copy).in2;
        const auto last = std::mismatch(before.rbegin(), before.rend(), copy.rbegin()).second;
        const std::span<const std::byte> changed(first, last.base());
        const auto offset = static_cast<std::size_t>(first - copy.begin());
        return client_.write(argument + offset, changed) == changed.size()
                   ? answer
                   : Answer{.value = -EFAULT};
    }

    /// Of a call that opens a device. The devices' thread starts with the first one.
    [[nodiscard]] Answer began(Answer answer) {
        if (answer.opened == File::none)
            return answer;
        ++tally_.get().opens;
        if (!thread_.joinable())
            start();
        return answer;
    }

    /// With every signal blocked but those of its own faults: they are the program's.
    void start() {
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        sigdelset(&all, SIGSEGV);
        sigdelset(&all, SIGBUS);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        thread_ = std::thread([this] { run_devices(); });
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void run_devices() {
        std::unique_lock lock(mutex_);
        bool stays_awake = false;
        while (!stopping_) {
            clock_.adjust();
            bool worked = false;
            for (const auto& slot : slots_)
                worked |= slot->device.face->step(slot->bus);
            if (worked) {
                count_misdeeds();
                lock.unlock(); // for the program's threads
                std::this_thread::yield();
                lock.lock();
            }
            if (worked || has_work_.exchange(false)) {
                stays_awake = true;
            } else if (std::exchange(stays_awake, false)) {
                poll_for_work(lock);
            } else {
                recorder_.flush();
                count_misdeeds();
                sleeps_ = true;
                work_.wait_for(lock, idle_time);
                sleeps_ = false;
            }
        }
    }

    /// Never waits for the lock while a store has it, which would make the store wake this thread.
    void poll_for_work(std::unique_lock<std::mutex>& lock) {
        lock.unlock();
        const auto end = std::chrono::steady_clock::now() + awake_time;
        do {
            std::this_thread::yield();
            if (has_work_ && lock.try_lock())
                return;
        } while (std::chrono::steady_clock::now() < end);
        lock.lock();
    }

    /// The call being served; its stack is kept.
    [[nodiscard]] const fault::Event& event() {
        if (!event_)
            event_ = {.time_ns = clock_.now(),
                      .thread = client_.thread(),
                      .stack = client_.stack(stacks_)};
        return *event_;
    }

    [[nodiscard]] AddressSpace& space(Space number) {
        const auto at = static_cast<std::size_t>(number);
        if (at >= spaces_.size() || spaces_[at] == nullptr) [[unlikely]]
            make_space(at);
        return *spaces_[at];
    }

    [[gnu::noinline]] void make_space(std::size_t at) {
        spaces_.resize(std::max(spaces_.size(), at + 1));
        spaces_[at] = std::make_unique<AddressSpace>();
    }

    /// A device that reaches `space`, for the recording.
    [[nodiscard]] std::string_view device_of(Space space) const {
        const auto found =
            std::ranges::find(slots_, space, [](const auto& slot) { return slot->space; });
        return found == slots_.end() ? std::string_view() : (*found)->address;
    }

    /// Whether the program has the page of the byte.
    [[nodiscard]] bool is_there(std::uint64_t address) {
        std::array<std::byte, 16> some; // NOLINT(*-member-init): not read
        return client_.read(address & ~(some.size() - 1), some) == some.size();
    }

    /// Other processes add to the same tally.
    void count_misdeeds() {
        std::uint64_t misdeeds = 0;
        for (const auto& slot : slots_)
            misdeeds += slot->device.model->misdeeds() + slot->device.face->malfunctions();
        tally_.get().misdeeds += misdeeds - std::exchange(counted_misdeeds_, misdeeds);
    }

    // Effects.
    [[nodiscard]] File file_of(int descriptor) override { return client_.file_of(descriptor); }

    [[nodiscard]] int map(const DmaMap& map) override {
        const std::uint64_t last = map.memory + (map.range.size().value() - 1);
        if (!is_there(map.memory) ||
            (last / page_bytes != map.memory / page_bytes && !is_there(last)))
            return EFAULT;
        space(map.space).map({.map = map, .event = event()});
        if (recorder_.records())
            recorder_.map(device_of(map.space), map.range, map.allows, event());
        ++tally_.get().maps;
        tally_.get().live += Tally::live_map(map.range.size().value());
        return 0;
    }

    void map_failed(const DmaMap& map, int error) override {
        space(map.space).note_failed({.map = map, .event = event(), .error = error});
    }

    void unmap(const DmaMap& map) override {
        for (const auto& slot : slots_)
            if (slot->space == map.space)
                slot->bus.note_unmap(map.range, event());
        space(map.space).unmap(map.range.start(), event());
        if (recorder_.records())
            recorder_.unmap(device_of(map.space), map.range, event());
        tally_.get().live -= Tally::live_map(map.range.size().value());
    }

    void attach(Device device, Space space) override {
        Slot& slot = *slots_[device];
        slot.space = space;
        slot.bus.attach(space == Space::none ? nullptr : &this->space(space));
        recorder_.device(slot.address, slot.kind, static_cast<std::uint32_t>(space));
    }

    [[nodiscard]] int set_interrupt(Device device, InterruptKind kind, unsigned vector,
                                    int descriptor) override {
        const int own = descriptor < 0 ? -1 : client_.duplicate(descriptor);
        if (descriptor >= 0 && own < 0)
            return EBADF;
        Slot& slot = *slots_[device];
        slot.bus.set_interrupt(kind, vector, own);
        slot.device.face->show_msix_enabled(slot.bus.is_armed(InterruptKind::msix));
        return 0;
    }

    void trigger(Device device, InterruptKind kind, unsigned vector) override {
        slots_[device]->bus.signal(kind, vector);
    }

    void mask(Device device, InterruptKind kind, bool masked) override {
        if (kind == InterruptKind::intx)
            slots_[device]->bus.mask(masked);
    }

    void reset(Device device) override { slots_[device]->device.face->function_level_reset(); }

    void closed(Device device) override { slots_[device]->device.face->reset(); }

    [[nodiscard]] int read_memory(std::uint64_t address, std::span<std::byte> bytes) override {
        return client_.read(address, bytes) == bytes.size() ? 0 : EFAULT;
    }

    [[nodiscard]] int write_memory(std::uint64_t address,
                                   std::span<const std::byte> bytes) override {
        return client_.write(address, bytes) == bytes.size() ? 0 : EFAULT;
    }

    struct SymboliseProgram {
        Client& client;

        void operator()(std::uintptr_t address, fault::FrameSink sink) const {
            client.symbolise(address, sink);
        }
    };

    Client& client_;
    Api api_;
    SymboliseProgram symbolise_{client_};
    OwnTally tally_;
    Recorder recorder_;
    Findings findings_;
    Stacks stacks_;
    FastClock clock_; ///< the devices' thread adjusts it
    std::optional<fault::Event> event_;
    std::vector<std::unique_ptr<AddressSpace>> spaces_; ///< by number
    std::vector<std::unique_ptr<Slot>> slots_;
    VfioKernel kernel_;
    std::mutex mutex_;
    std::condition_variable work_;
    std::uint64_t counted_misdeeds_ = 0;
    std::atomic<bool> has_work_ = false; ///< since the devices looked last
    bool sleeps_ = false;                ///< the devices' thread, which nobody woke yet
    bool stopping_ = false;
    std::thread thread_;
};

Session::Session(const Options& options, Client& client)
    : state_(std::make_unique<State>(options, client)) {}

Session::~Session() = default;

Answer Session::open(std::string_view path) {
    return state_->open(path);
}

void Session::close(File file) {
    state_->close(file);
}

Answer Session::ioctl(File file, unsigned long request, std::uint64_t argument) {
    return state_->ioctl(file, request, argument);
}

std::int64_t Session::read(File file, std::uint64_t offset, std::span<std::byte> into) {
    const auto at = state_->place(file, offset);
    if (!at || !state_->load(*at, into))
        return -EINVAL;
    return state_->is_lost(*at) ? -EIO : static_cast<std::int64_t>(into.size());
}

std::int64_t Session::write(File file, std::uint64_t offset, std::span<const std::byte> from) {
    const auto at = state_->place(file, offset);
    if (!at || !state_->store(*at, from))
        return -EINVAL;
    return state_->is_lost(*at) ? -EIO : static_cast<std::int64_t>(from.size());
}

std::optional<Device> Session::device_of(File file) const {
    const auto at = state_->place(file, 0);
    return at ? std::optional(at->device) : std::nullopt;
}

std::optional<Session::Window> Session::window(File file, std::uint64_t offset,
                                               std::uint64_t bytes) const {
    const auto at = state_->place(file, offset);
    return at && state_->may_map(*at, bytes) ? at : std::nullopt;
}

void Session::load(const Window& at, std::span<std::byte> into) {
    if (!state_->load(at, into))
        std::ranges::fill(into, std::byte{0xff}); // as a bus answers for no device
}

void Session::store(const Window& at, std::span<const std::byte> from) {
    (void)state_->store(at, from);
}

void Session::finish() {
    state_->stop();
}

} // namespace moat::run
