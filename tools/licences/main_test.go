package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLicenceOf(t *testing.T) {
	t.Parallel()
	const (
		mit = "Permission is hereby granted, free of charge, to any person\n" +
			"The above copyright notice and this permission notice shall be included"
		bsd2 = "Redistribution and use in source and binary forms, with or\n\twithout modification, are permitted"
		gpl  = "GNU GENERAL PUBLIC LICENSE Version 3"
	)
	for _, test := range []struct {
		name  string
		files map[string]string
		want  string
		err   string
	}{
		{"a known licence is named", map[string]string{"LICENSE.txt": mit}, "MIT", ""},
		{"line breaks and case do not matter", map[string]string{"COPYING": bsd2}, "BSD-2-Clause", ""},
		{"a third clause makes another licence", map[string]string{"LICENSE": bsd2 + " Neither the name of"}, "BSD-3-Clause", ""},
		{"a further file of an unknown kind is no matter", map[string]string{"LICENSE": mit, "LICENSE-LOGO": "a picture"}, "MIT", ""},
		{"a further file of a refused kind is", map[string]string{"LICENSE": mit, "LICENSE-OLD": gpl}, "", "gnu general public license"},
		{"no file is an error", map[string]string{"README": mit}, "", "ships no licence"},
		{"an unknown licence is an error", map[string]string{"LICENSE": "All rights reserved."}, "", "ships no licence"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatalf("write %s: %v", name, err)
				}
			}
			got, err := licenceOf(dir)
			if got != test.want {
				t.Errorf("licenceOf = %q, want %q", got, test.want)
			}
			switch {
			case test.err == "" && err != nil:
				t.Errorf("licenceOf: %v", err)
			case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
				t.Errorf("licenceOf: error %v, want one that says %q", err, test.err)
			}
		})
	}
}
