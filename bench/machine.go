package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describeMachine says what the figures were measured on. Folder is where the
// database will be; empty is the system's place for temporary files.
func describeMachine(folder string) string {
	if folder == "" {
		folder = os.TempDir()
	}
	return fmt.Sprintf("Measured on %s: %s, %d cores, %.0f GiB; %s, %s; database on %s, %s; load before %s.",
		time.Now().UTC().Format("2 January 2006, 15:04 UTC"), processor(), runtime.NumCPU(), totalMemory(), system(),
		runtime.Version(), fileSystem(folder), syncTime(folder), loadAverage())
}

func processor() string {
	if model := valueOf("/proc/cpuinfo", "model name"); model != "" {
		return model
	}
	return runtime.GOARCH
}

// valueOf finds the first line "name: value" of a file.
func valueOf(file, name string) string {
	text, _ := os.ReadFile(file) //nolint:gosec // a file of the kernel
	for line := range strings.Lines(string(text)) {
		if n, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(n) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func totalMemory() float64 {
	kilobytes, _ := strconv.ParseFloat(strings.TrimSuffix(valueOf("/proc/meminfo", "MemTotal"), " kB"), 64)
	return kilobytes / (1 << 20)
}

func system() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	kernel := "Linux " + strings.TrimSpace(string(text))
	release, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(release)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"`) + ", " + kernel
		}
	}
	return kernel
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// fileSystem names the kind of file system that a folder is on.
func fileSystem(folder string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(folder, &s); err != nil {
		return "an unknown file system"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	}
	if name, ok := names[int64(s.Type)]; ok { //nolint:unconvert // its size differs between architectures
		return name
	}
	return fmt.Sprintf("file system %x", s.Type)
}

// syncTime measures how long the disk takes to keep 4 KiB.
func syncTime(folder string) string {
	file, err := os.Create(filepath.Join(folder, fmt.Sprintf("batchyard-sync-%d", os.Getpid())))
	if err != nil {
		return "sync not measured"
	}
	defer func() { _ = os.Remove(file.Name()) }()
	defer func() { _ = file.Close() }()
	block := make([]byte, 4096)
	var times []time.Duration
	for range 200 {
		begun := time.Now()
		if _, err := file.Write(block); err != nil {
			return "sync not measured"
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return "sync not measured"
		}
		times = append(times, time.Since(begun))
	}
	slices.Sort(times)
	return fmt.Sprintf("fdatasync of 4 KiB p50 %.2f ms, p99 %.2f ms", milliseconds(percentile(times, 0.5)), milliseconds(percentile(times, 0.99)))
}
