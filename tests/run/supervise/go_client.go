// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A small VFIO program in Go on the edu device: go_client CASE. It knows nothing of moat.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

const (
	setIommu       = 0x3b66
	setContainer   = 0x3b68
	getDevice      = 0x3b6a
	mapDma         = 0x3b71
	unmapDma       = 0x3b72
	barBytes       = 1 << 20
	page           = 4096
	iova           = 0x100000
	deviceBuffer   = 0x40000
	configOffset   = 7 << 40
	identity       = 0x010000ed
	regSource      = 0x80
	regTarget      = 0x88
	regCount       = 0x90
	regCommand     = 0x98
	commandStart   = 1
	commandToGuest = 2
)

func require(good bool, what string) {
	if !good {
		fmt.Fprintln(os.Stderr, "not so:", what)
		os.Exit(3)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func ioctl(file *os.File, request uintptr, argument unsafe.Pointer) uintptr {
	value, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), request, uintptr(argument))
	if errno != 0 {
		check(errno)
	}
	return value
}

type device struct {
	container, group, file *os.File
	bar                    []byte
}

func open() device {
	var d device
	var err error
	d.container, err = os.OpenFile("/dev/vfio/vfio", os.O_RDWR, 0)
	check(err)
	d.group, err = os.OpenFile("/dev/vfio/1280", os.O_RDWR, 0)
	check(err)
	number := int32(d.container.Fd())
	ioctl(d.group, setContainer, unsafe.Pointer(&number))
	value, _, errno := syscall.Syscall(syscall.SYS_IOCTL, d.container.Fd(), setIommu, 3)
	require(errno == 0 && value == 0, "the container has an IOMMU")
	name := append([]byte("0000:05:00.0"), 0)
	d.file = os.NewFile(ioctl(d.group, getDevice, unsafe.Pointer(&name[0])), "device")
	d.bar, err = syscall.Mmap(int(d.file.Fd()), 0, barBytes, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_SHARED)
	check(err)
	_, err = d.file.WriteAt([]byte{6, 0}, configOffset+4)
	check(err)
	require(d.read(0) == identity, "the device's identity")
	return d
}

func (d device) read(offset int) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&d.bar[offset])))
}

func (d device) write(offset int, value uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&d.bar[offset])), value)
}

//go:noinline
func (d device) copy(source, target uint64, count, direction uint32) {
	*(*uint64)(unsafe.Pointer(&d.bar[regSource])) = source
	*(*uint64)(unsafe.Pointer(&d.bar[regTarget])) = target
	d.write(regCount, count)
	d.write(regCommand, commandStart|direction)
	for d.read(regCommand)&commandStart != 0 {
		runtime.Gosched()
	}
}

//go:noinline
func (d device) mapBuffer(memory []byte) {
	request := make([]byte, 32)
	binary.LittleEndian.PutUint32(request, 32)
	binary.LittleEndian.PutUint32(request[4:], 3)
	binary.LittleEndian.PutUint64(request[8:], uint64(uintptr(unsafe.Pointer(&memory[0]))))
	binary.LittleEndian.PutUint64(request[16:], iova)
	binary.LittleEndian.PutUint64(request[24:], uint64(len(memory)))
	ioctl(d.container, mapDma, unsafe.Pointer(&request[0]))
}

func (d device) unmapBuffer(size uint64) {
	request := make([]byte, 24)
	binary.LittleEndian.PutUint32(request, 24)
	binary.LittleEndian.PutUint64(request[8:], iova)
	binary.LittleEndian.PutUint64(request[16:], size)
	ioctl(d.container, unmapDma, unsafe.Pointer(&request[0]))
}

func newMemory(size int) []byte {
	memory, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON)
	check(err)
	return memory
}

// dma copies to the device and back while goroutines and the collector run.
func dma() {
	d := open()
	memory := newMemory(2 * page)
	d.mapBuffer(memory)
	stop := make(chan struct{})
	for i := 0; i < 4; i++ {
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.GC()
				}
			}
		}()
	}
	for round := 1; round < 100; round++ {
		for i := 0; i < 100; i++ {
			memory[i] = byte(i + round)
		}
		d.copy(iova, deviceBuffer, 100, 0)
		d.copy(deviceBuffer, iova+page, 100, commandToGuest)
		require(bytes.Equal(memory[:100], memory[page:page+100]), "the device copies")
	}
	close(stop)
	d.unmapBuffer(2 * page)
}

func overrun() {
	d := open()
	d.mapBuffer(newMemory(page))
	d.copy(deviceBuffer, iova+page-16, 64, commandToGuest)
	d.unmapBuffer(page)
}

func useAfterUnmap() {
	d := open()
	d.mapBuffer(newMemory(page))
	d.unmapBuffer(page)
	d.copy(deviceBuffer, iova+128, 64, commandToGuest)
}

func main() {
	cases := map[string]func(){"dma": dma, "overrun": overrun, "use_after_unmap": useAfterUnmap}
	require(len(os.Args) == 2 && cases[os.Args[1]] != nil, "the argument is a case")
	cases[os.Args[1]]()
}
