//go:build !race

package control_test

const raced = false
