package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// exitCode0 is a program that does nothing but end: exit_group(0).
func exitCode0() (machine uint16, code []byte, err error) {
	switch runtime.GOARCH {
	case "amd64": // xor edi, edi; mov eax, 231; syscall
		return 62, []byte{0x31, 0xff, 0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05}, nil
	case "arm64": // mov x0, #0; mov x8, #94; svc #0
		return 183, []byte{0, 0, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4}, nil
	}
	return 0, nil, fmt.Errorf("no static no-op is known for %s", runtime.GOARCH)
}

// writeNoop writes the smallest static program into a folder: a header, one
// segment, a few instructions. Its cost is that of any process, without the
// loading of libraries, which is most of /bin/true.
func writeNoop(folder string) (string, error) {
	machine, code, err := exitCode0()
	if err != nil {
		return "", err
	}
	const header, segment, base = 64, 56, 0x400000
	length := uint64(header + segment + len(code))
	little := binary.LittleEndian
	program := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 15: 0}
	program = little.AppendUint16(program, 2) // executable
	program = little.AppendUint16(program, machine)
	program = little.AppendUint32(program, 1)
	program = little.AppendUint64(program, base+header+segment) // entry
	program = little.AppendUint64(program, header)              // segments
	program = little.AppendUint64(program, 0)                   // no sections
	program = little.AppendUint32(program, 0)
	for _, size := range []uint16{header, segment, 1, 64, 0, 0} {
		program = little.AppendUint16(program, size)
	}
	program = little.AppendUint32(program, 1) // to be loaded
	program = little.AppendUint32(program, 5) // to be read and executed
	for _, word := range []uint64{0, base, base, length, length, 0x1000} {
		program = little.AppendUint64(program, word)
	}
	name := filepath.Join(folder, "noop")
	if err := os.WriteFile(name, append(program, code...), 0o755); err != nil { //nolint:gosec // tasks run it as users of their own
		return "", fmt.Errorf("write no-op: %w", err)
	}
	return name, nil
}
