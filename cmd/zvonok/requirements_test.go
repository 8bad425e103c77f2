package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// requirements are those of doors, cards and who may know, and of the books (their
// invariants I and their faults T): each is proved by a test or a benchmark that
// names it in the comment before it, or in itself.
var requirements = []string{
	"R1", "R2", "R4", "R11", "R13", "R15", "R16", "R17", "R18", "R19", "R20", "R21", "R22", "R23", "R24", "R25", "R26", "R27",
	"R28", "R29", "R48", "R49", "R56", "R57", "R58", "R59", "R60", "R61", "R62", "R63", "R64", "D3", "D8", "D9", "D10", "D12", "D14",
	"I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13", "I14", "I15", "I16", "I17",
	"T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "T13", "T14", "T15", "T16", "T17", "T18", "T19",
	"T20", "T21",
}

// TestEveryRequirementNamesItsTest finds the tests of each requirement; run it
// with -v for the table.
func TestEveryRequirementNamesItsTest(t *testing.T) {
	t.Parallel()
	root, tests := filepath.Join("..", ".."), map[string][]string{}
	number := regexp.MustCompile(`\b[RDIT][0-9]+\b`)
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, "_test.go") || entry.Name() == "requirements_test.go" {
			return err
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, file, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		for _, declaration := range parsed.Decls {
			f, ok := declaration.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(f.Name.Name, "Test") && !strings.HasPrefix(f.Name.Name, "Benchmark") {
				continue
			}
			begin, end := f.Pos(), f.End()
			if f.Doc != nil {
				begin = f.Doc.Pos()
			}
			for _, group := range parsed.Comments {
				if group.Pos() < begin || group.End() > end {
					continue
				}
				for _, r := range number.FindAllString(group.Text(), -1) {
					if r[0] == 'T' && strings.HasPrefix(folder, "ussd") {
						continue // the dialogues of another paper have such numbers too
					}
					if name := path.Join(filepath.ToSlash(folder), f.Name.Name); !slices.Contains(tests[r], name) {
						tests[r] = append(tests[r], name)
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range requirements {
		if len(tests[r]) == 0 {
			t.Errorf("no test names %s", r)
		}
		slices.Sort(tests[r])
		t.Logf("%-4s %s", r, strings.Join(tests[r], ", "))
	}
}
