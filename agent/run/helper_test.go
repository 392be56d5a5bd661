package run_test

import (
	"fmt"
	"os"
)

// helperMain is a program that runs as a task of a test.
func helperMain(name string, args []string) {
	switch name {
	case "hog":
		hog()
	default:
		fmt.Fprintln(os.Stderr, "no such helper:", name)
		os.Exit(99)
	}
}

// hog takes memory until it is stopped.
func hog() {
	var all [][]byte
	for len(all) < 4096 {
		block := make([]byte, 1<<20)
		for i := range block {
			block[i] = byte(i)
		}
		all = append(all, block)
	}
	fmt.Println("nobody stopped me", len(all))
}
