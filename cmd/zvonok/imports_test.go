package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// order is the direction of imports: a top-level folder may import only what
// stands left of it, and itself.
var order = []string{"ledger", "templates", "access", "gateway", "ussd", "cmd"}

// narrower names packages that may know less of ours than their folder allows,
// because they are to stay readable (and usable) by themselves.
var narrower = map[string][]string{
	"ledger/money":            {},
	"ledger/pg":               {},
	"ledger/peer":             {},
	"ledger/registry":         {"ledger/money", "ledger/pg"},
	"templates/gsm":           {},
	"templates":               {"ledger/money", "templates/gsm"},
	"access/phone":            {},
	"gateway/smpp":            {},
	"gateway/smpp/smpptest":   {"gateway/smpp", "templates/gsm"},
	"gateway/lease":           {},
	"gateway/carrier":         {"gateway/lease", "gateway/smpp", "access/phone", "templates/gsm"},
	"gateway/routing":         {"gateway/carrier", "gateway/delivery", "access/phone", "ledger/pg"},
	"gateway/email":           {},
	"gateway/email/emailtest": {},
	"gateway/parent": {
		"access", "access/door", "access/phone", "access/reader", "gateway/carrier", "gateway/delivery", "gateway/notice",
		"gateway/push", "gateway/subscription", "ledger", "ledger/meal", "ledger/money", "ledger/peer", "ledger/pg", "templates",
	},
}

// TestImportsGoOneWay keeps the plan of rooms true: a package that imports
// against the order would make two rooms one. Move the code to the room whose
// noun it is about, or let the fact travel as a job.
func TestImportsGoOneWay(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); path != root && (strings.HasPrefix(name, ".") || name == "var" || name == "bin" || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		from := filepath.ToSlash(filepath.Dir(relative))
		test := strings.HasSuffix(path, "_test.go")
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			to, ours := strings.CutPrefix(imported, "zvonok/")
			if !ours {
				continue
			}
			checkImport(t, relative, from, to, test)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkImport(t *testing.T, file, from, to string, test bool) {
	t.Helper()
	fromTop, _, _ := strings.Cut(from, "/")
	toTop, _, _ := strings.Cut(to, "/")
	fromIndex, toIndex := slices.Index(order, fromTop), slices.Index(order, toTop)
	if fromIndex < 0 || toIndex < 0 {
		t.Errorf("%s imports %s: the top level is %v, and nothing else", file, to, order)
		return
	}
	if toIndex > fromIndex {
		t.Errorf("%s imports %s: imports go %s", file, to, strings.Join(order, " < "))
	}
	// Tests may start the real parts they need (a cluster, a catcher, an operator).
	internal := strings.HasPrefix(to, from+"/internal/")
	if allowed, ok := narrower[from]; ok && !test && from != to && !internal && !slices.Contains(allowed, to) {
		t.Errorf("%s imports %s: %s may know of ours only %v", file, to, from, allowed)
	}
	// Nothing but tests and the demo uses the throw-away parts.
	if strings.HasSuffix(to, "/pgtest") && !test && from != to {
		t.Errorf("%s imports %s outside a test", file, to)
	}
}
