package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The figures in the document are between these lines.
const (
	figuresBegin = "<!-- figures: written by make bench -->"
	figuresEnd   = "<!-- end of figures -->"
)

// table writes the figures in the order of their rows.
func table(figures []figure) string {
	sorted := slices.Clone(figures)
	slices.SortStableFunc(sorted, func(a, b figure) int { return rowNumber(a.row) - rowNumber(b.row) })
	var text strings.Builder
	text.WriteString("| row | what | goal: hold / aim | measured | verdict | CPU a task | how |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, f := range sorted {
		row := f.row
		if row == "0" {
			row = "" // what is compared with
		}
		fmt.Fprintf(&text, "| %s | %s | %s | %s | %s | %s | %s |\n", row, f.what, f.goal, f.value, f.verdict, f.cpu, f.how)
	}
	return text.String()
}

func rowNumber(row string) int {
	number, _ := strconv.Atoi(strings.TrimRight(row, "abc"))
	return number
}

// replaceFigures puts text between the marks of a document.
func replaceFigures(name, text string) error {
	document, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read document: %w", err)
	}
	before, rest, begun := strings.Cut(string(document), figuresBegin)
	_, after, ended := strings.Cut(rest, figuresEnd)
	if !begun || !ended {
		return fmt.Errorf("%s has no lines %q and %q", name, figuresBegin, figuresEnd)
	}
	changed := before + figuresBegin + "\n\n" + text + "\n" + figuresEnd + after
	if err := os.WriteFile(name, []byte(changed), 0o600); err != nil {
		return fmt.Errorf("write document: %w", err)
	}
	return nil
}
