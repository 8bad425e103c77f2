package reader_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zvonok/access/reader"
)

// Issue 6, item 2: files are taken whole, once, and what is wrong is named.
func TestAFileOfADropFolderIsTakenOnceAndPutAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	folder := reader.DropFolder{Dir: t.TempDir(), Device: s.door.id}
	put := func(name, content string, age time.Duration) {
		t.Helper()
		path := filepath.Join(folder.Dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		must(t, os.Chtimes(path, time.Now().Add(-age), time.Now().Add(-age)))
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(folder.Dir, name))
		return err == nil
	}
	lines := "\ufeffat,card,direction\n" +
		"2026-11-23T08:10:00+03:00," + uid(1) + ",in\n" +
		"2026-11-23T08:11:00+03:00," + uid(2) + ",IN\n" +
		"yesterday," + uid(3) + ",in\n" +
		"2026-11-23T08:12:00+03:00,FFFFFFFF,in\n" +
		"2026-11-23T08:12:00+03:00,\"" + uid(3) + ",in\n"
	put("a.csv", lines, time.Minute)
	put("b.csv", lines, 0) // still being written
	put("c.txt", lines, time.Minute)
	must(t, s.intake.Sweep(t.Context(), folder))
	if exists("a.csv") || !exists("done/a.csv") || !exists("b.csv") || !exists("c.txt") {
		t.Error("the wrong files were taken")
	}
	complaints, err := os.ReadFile(filepath.Join(folder.Dir, "done/a.csv.errors"))
	must(t, err)
	for _, want := range []string{"line 4: bad_event: at", "line 5: unknown_card", "line 6: "} {
		if !strings.Contains(string(complaints), want) {
			t.Errorf("the complaints lack %q:\n%s", want, complaints)
		}
	}
	// The same lines in another file, as exports overlap; and numbered ones.
	put("a.csv", lines, time.Minute)
	put("d.csv", "seq,type,person,by,direction,at\n5,admitted,o-1-p3,,in,2026-11-23T08:13:00+03:00\nfive,pass,,,in,2026-11-23T08:13:00+03:00\n", time.Minute)
	put("e.csv", "card,direction\n", time.Minute)
	must(t, s.intake.Sweep(t.Context(), folder))
	if n := s.count(`SELECT count(*) FROM door.pass`); n != 3 {
		t.Errorf("%d passes, want 3", n)
	}
	for _, name := range []string{"d.csv", "e.csv"} {
		if !exists("done/"+name) || !exists("done/"+name+".errors") {
			t.Errorf("%s is not put away with its errors", name)
		}
	}
	// Numbers that are made of what a line says do not follow each other, and lack nothing.
	sequences, err := reader.Sequences(t.Context(), s.pool)
	must(t, err)
	if len(sequences) != 0 {
		t.Errorf("missing numbers %+v", sequences)
	}
	// Nothing is put away that is not committed.
	put("f.csv", "at,card\n2026-11-23T08:14:00+03:00,"+uid(1)+"\n", time.Minute)
	s.exec(`UPDATE reader.device SET revoked_at = now() WHERE id = $1`, s.door.id)
	if err := s.intake.Sweep(t.Context(), folder); err == nil || !exists("f.csv") {
		t.Errorf("with the key revoked: %v", err)
	}
}
