package door_test

import (
	"bytes"
	"encoding/csv"
	"slices"
	"testing"

	"github.com/xuri/excelize/v2"

	"zvonok/access/door"
)

// Issue 6, item 4: attendance as CSV and XLSX. ASVS V1.2.10: no formula gets
// into a spreadsheet.
func TestAttendanceIsExported(t *testing.T) {
	t.Parallel()
	c := newTown(t)
	s := c.school(t, "school", 2)
	c.lessons(t, s)
	c.exec(t, `UPDATE ledger.person SET family_name = '=cmd|x', given_name = 'Маша, "М"' WHERE id = $1`, s.people[0])
	c.record(t, s.tap(0, door.In, clock(8, 30, 1)), s.tap(0, door.Out, clock(14, 5, 0)))
	a, err := door.ReadAttendance(t.Context(), c.pool, s.id, "", 0, date(0), date(0), clock(23, 0, 0))
	must(t, err)

	var file bytes.Buffer
	must(t, a.Sheet().WriteCSV(&file))
	lines, err := csv.NewReader(&file).ReadAll()
	must(t, err)
	came := []string{"2026-11-23", "pupil", "5 «А»", "'=cmd|x", `Маша, "М"`, "", "late", "08:30", "14:05", "1", "no", ""}
	missing := []string{"2026-11-23", "pupil", "5 «А»", "Петрова", "Маша", "", "absent", "", "", "", "no", ""}
	if len(lines) != 3 || lines[0][0] != "date" || !slices.Equal(lines[1], came) || !slices.Equal(lines[2], missing) {
		t.Errorf("the CSV holds %q", lines)
	}

	file.Reset()
	must(t, a.Sheet().WriteXLSX(&file))
	book, err := excelize.OpenReader(&file)
	must(t, err)
	defer book.Close()
	rows, err := book.GetRows("attendance")
	must(t, err)
	if len(rows) != 3 || rows[1][3] != "=cmd|x" || rows[1][6] != "late" || rows[2][6] != "absent" {
		t.Errorf("the workbook holds %q", rows)
	}
	if formula, err := book.GetCellFormula("attendance", "D2"); err != nil || formula != "" {
		t.Errorf("the name is a formula: %q, %v", formula, err)
	}
}
