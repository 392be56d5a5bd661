// Command licences checks that every module linked into the program, or into
// its tests, is under a licence that goes with Apache-2.0.
//
//	licences DIR
//
// DIR is the folder of the main module. It reads the licence file that each
// module ships and recognises it by phrases that its kind cannot do without.
// A module whose licence it does not know, or that ships none, is an error: a
// person reads that licence and adds it here or takes another library.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// kind is a licence that may be linked with ours, and the phrases, in lower
// case and with single spaces, that together give it away.
type kind struct {
	name    string
	phrases []string
}

// kinds is ordered so that a licence comes after those whose phrases contain
// its own: all of BSD-2-Clause stands in BSD-3-Clause.
func kinds() []kind {
	const bsd = "redistribution and use in source and binary forms, with or without modification"
	return []kind{
		{"Apache-2.0", []string{"apache license", "version 2.0"}},
		{"MPL-2.0", []string{"mozilla public license", "2.0"}},
		{"BSD-3-Clause", []string{bsd, "neither the name"}},
		{"BSD-3-Clause", []string{bsd, "may not be used to endorse"}},
		{"BSD-2-Clause", []string{bsd}},
		{"MIT", []string{"permission is hereby granted, free of charge", "the above copyright notice and this permission notice"}},
		{"MIT-0", []string{"permission is hereby granted, free of charge", "without restriction"}},
		{"ISC", []string{"permission to use, copy, modify, and", "distribute this software for any purpose"}},
		{"Unlicense", []string{"this is free and unencumbered software released into the public domain"}},
		{"CC0-1.0", []string{"cc0 1.0 universal"}},
		{"Zlib", []string{"altered source versions must be plainly marked as such"}},
	}
}

// refused lists phrases of licences that would bind whoever passes our program
// on. They are looked for first, since such texts quote milder ones.
func refused() []string {
	return []string{
		"gnu general public license", "gnu affero general public license",
		"gnu lesser general public license", "server side public license",
		"business source license", "commons clause", "elastic license",
	}
}

// goModule is what the go command tells of the module that holds a package.
type goModule struct {
	Path, Version, Dir string
	Main               bool
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: licences DIR")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

// run prints how many modules are under which licence, and returns one error
// that names every module whose licence does not fit.
func run(ctx context.Context, dir string, out io.Writer) error {
	modules, err := linked(ctx, dir)
	if err != nil {
		return err
	}

	var problems []error
	count := map[string]int{}
	for _, m := range modules {
		name, err := licenceOf(m.Dir)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s %s: %w", m.Path, m.Version, err))
			continue
		}
		count[name]++
	}

	for _, k := range kinds() {
		if count[k.name] > 0 {
			fmt.Fprintf(out, "  %-12s %d\n", k.name, count[k.name])
			delete(count, k.name)
		}
	}
	return errors.Join(problems...)
}

// linked returns the modules that packages of the module in dir and their
// tests are built from, without that module itself.
func linked(ctx context.Context, dir string) ([]goModule, error) {
	command := exec.CommandContext(ctx, "go", "list", "-e", "-deps", "-test", "-json=Module", "./...")
	command.Dir = dir
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}

	byPath := map[string]goModule{}
	decoder := json.NewDecoder(strings.NewReader(string(output)))
	for {
		var p struct{ Module *goModule }
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the list of packages: %w", err)
		}
		if p.Module != nil && !p.Module.Main {
			byPath[p.Module.Path] = *p.Module
		}
	}

	modules := make([]goModule, 0, len(byPath))
	for _, m := range byPath {
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b goModule) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

// licenceOf names the licence of the module in dir, by the files there whose
// names say that they hold one. Further files may hold the terms of a logo or
// of code taken from others; they only must not be of a refused kind.
func licenceOf(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("open the module's folder: %w", err)
	}
	found := ""
	for _, entry := range entries {
		if entry.IsDir() || !namesLicence(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return "", fmt.Errorf("read the licence: %w", err)
		}
		name, err := classify(string(text))
		if err != nil {
			return "", fmt.Errorf("%s: %w", entry.Name(), err)
		}
		if found == "" {
			found = name
		}
	}
	if found == "" {
		return "", errors.New("ships no licence that is known here")
	}
	return found, nil
}

func namesLicence(name string) bool {
	name = strings.ToLower(name)
	return strings.HasPrefix(name, "license") || strings.HasPrefix(name, "licence") ||
		strings.HasPrefix(name, "copying") || strings.HasPrefix(name, "unlicense")
}

// classify names the licence that a text is, or returns "" if it knows none
// like it. A text of a refused kind is an error.
func classify(text string) (string, error) {
	text = strings.Join(strings.Fields(strings.ToLower(text)), " ")
	for _, phrase := range refused() {
		// The Mozilla licence names the GNU ones as those it may be joined to.
		if strings.Contains(text, phrase) && !strings.Contains(text, "mozilla public license") {
			return "", fmt.Errorf("speaks of the %s", phrase)
		}
	}
	for _, k := range kinds() {
		if !slices.ContainsFunc(k.phrases, func(p string) bool { return !strings.Contains(text, p) }) {
			return k.name, nil
		}
	}
	return "", nil
}
