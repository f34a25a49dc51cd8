# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The machines of the lab: devices behind an emulated VT-d, the modules that drive them, and the words
on the kernel's command line."""

import json
import pathlib
from dataclasses import dataclass, replace

DISK_BYTES = 64 << 20
# Without this mask, edu reaches 28 bits of addresses.
EDU = ("-device", "edu,addr=04,dma_mask=0xffffffffffffffff")
NVME = ("-drive", "if=none,id=nvme,format=raw,file={nvme}", "-device", "nvme,drive=nvme,serial=moat,addr=05")


@dataclass(frozen=True)
class Machine:
    """devices: QEMU's words, with {nvme} and so on for the disks' files; modules: those to insert
    before the job, by name; what they depend on is inserted, too; iommu: may be ""; before: the words before QEMU's own."""

    devices: tuple[str, ...]
    disks: tuple[str, ...]
    modules: tuple[str, ...]
    append: str = ""
    accelerator: tuple[str, ...] = ("-accel", "tcg,thread=multi")
    processors: int = 2
    iommu: str = "intel-iommu,intremap=on,caching-mode=off"
    before: tuple[str, ...] = ()
    qemu: tuple[str, ...] = ("qemu-system-x86_64",)

    def counting_instructions(self):
        """The same machine with one processor, whose clock advances one ns an instruction."""
        return replace(self, processors=1, accelerator=(
            "-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"))

    def single_threaded(self):
        """The same machine, whose processors run by turns: none meets code that another one patches."""
        return replace(self, accelerator=("-accel", "tcg,thread=single"))

    def words(self, folder):
        """QEMU's words for the devices, with the disks in the folder."""
        words = self.devices
        for disk in self.disks:
            words = [word.replace(f"{{{disk}}}", str(disk_file(folder, disk))) for word in words]
        return words

    def make_disks(self, folder):
        """Makes the disks that the folder lacks: empty ones."""
        for disk in self.disks:
            if not disk_file(folder, disk).exists():
                with open(disk_file(folder, disk), "wb") as file:
                    file.truncate(DISK_BYTES)


def disk_file(folder, disk):
    return pathlib.Path(folder) / f"{disk}.img"


# What the tests drive from user space: an edu device, an NVMe controller with a disk, a BAR of 4 GiB
# without and one of 2 GiB with memory behind it. A kernel with NVMe built in leaves the controller.
VFIO = Machine(
    devices=(*EDU, *NVME,
             "-device", "pci-testdev,membar=4G,addr=06",
             "-object", "memory-backend-ram,id=shared,size=2G,share=on",
             "-device", "ivshmem-plain,memdev=shared,addr=07"),
    disks=("nvme",),
    modules=("vfio_iommu_type1", "vfio-pci"),
    append="nvme_load=no initcall_blacklist=nvme_init")

# What the kernel's own drivers drive: edu (for a test's module), an NVMe, a USB and a SATA disk, and a
# network of its own whose host at 10.0.2.100 echoes what comes to port 7.
DRIVERS = Machine(
    devices=(*EDU, *NVME,
             "-netdev", "user,id=net,restrict=on,guestfwd=tcp:10.0.2.100:7-cmd:cat",
             "-device", "e1000e,netdev=net,addr=06",
             "-device", "qemu-xhci,id=xhci,addr=07",
             "-drive", "if=none,id=usb,format=raw,file={usb}",
             "-device", "usb-storage,bus=xhci.0,drive=usb",
             "-device", "ich9-ahci,id=ahci,addr=08",
             "-drive", "if=none,id=sata,format=raw,file={sata}",
             "-device", "ide-hd,drive=sata,bus=ahci.0"),
    disks=("nvme", "usb", "sata"),
    modules=("nvme", "e1000e", "xhci-pci", "usb-storage", "sd_mod", "ahci"))


# edu behind an IOMMU of another kind. Its driver is a module: the kernel's drivers wait for it.
VIRTIO = Machine(devices=EDU, disks=(), modules=("virtio-iommu",), iommu="virtio-iommu-pci,addr=03")


# One whose NVMe controller is moat's; it shows the maps of the kernel's driver to VFIO: caching mode.
SOFT_DISK = Machine(devices=(), disks=(), modules=("nvme",), append="iommu.strict=1",
                    accelerator=("-accel", "tcg,thread=single"), processors=1,
                    iommu="intel-iommu,intremap=on,caching-mode=on,aw-bits=39")
# QEMU's words for memory that vfio-user-pci passes on by descriptor.
SHARED_MEMORY = ("-object", "memory-backend-memfd,id=memory,size=512M,share=on",
                 "-machine", "memory-backend=memory")


def on_soft_disk(moat_run, qemu=SOFT_DISK.qemu):
    """Its controller comes by QEMU's vfio-pci. moat_run: the words that QEMU runs under."""
    return replace(SOFT_DISK, devices=("-device", "vfio-pci,host=0000:05:00.0"), before=tuple(moat_run),
                   qemu=tuple(qemu))


def on_served_disk(socket, qemu, devices=(), iommu=SOFT_DISK.iommu):
    """Its controller comes by vfio-user from the server at the socket. devices: further words of QEMU's."""
    disk = {"driver": "vfio-user-pci", "socket": {"type": "unix", "path": str(socket)}}
    return replace(SOFT_DISK, devices=(*devices, "-device", json.dumps(disk)), iommu=iommu, qemu=tuple(qemu))


MACHINES = {"vfio": VFIO, "drivers": DRIVERS, "virtio": VIRTIO}
