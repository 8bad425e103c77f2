package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Issue 6, item 5: access answers every question of rights, and nothing else does.
// So nobody else reads the tables in which rights and consents stand, but for these,
// which decide on nobody's right to know.
func TestNothingButAccessReadsRights(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	harmless := map[string]string{
		"gateway/delivery/cap.go":        "finds in which zone the day of a phone is counted",
		"gateway/notice/digest.go":       "finds which digests before were of a reader's organisations",
		"gateway/notice/merge.go":        "counts the children of a phone, to wait for a sibling's news",
		"gateway/subscription/import.go": "finds whose wishes a line of the registry is about",
		"cmd/zvonok/history.go":          "makes up the history of a synthetic city",
		"cmd/zvonok/import.go":           "gathers statistics for the planner",
	}
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if name = filepath.ToSlash(name); filepath.ToSlash(filepath.Dir(name)) == "access" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, source := range []string{"access.guardian", "access.consent", "access.rights(", "access.legal("} {
			if !strings.Contains(string(text), source) {
				continue
			}
			if seen[name] = true; harmless[name] == "" {
				t.Errorf("%s reads %s; ask access.May, access.ChildOf, access.ChildrenOf or access.Audience", name, source)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range harmless {
		if !seen[name] {
			t.Errorf("%s reads no rights any more: take it off the list", name)
		}
	}
}
