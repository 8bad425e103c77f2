package door

import (
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/xuri/excelize/v2"

	"zvonok/ledger"
)

// columns are those of an exported list, named like those of the registry's files.
var columns = []string{
	"date", "kind", "group", "family_name", "given_name", "patronymic",
	"status", "first_in", "last_out", "late_minutes", "incomplete", "reason",
}

// WriteCSV writes the days as UTF-8 CSV with a header line, times by the
// organisation's clock. A cell that a spreadsheet would take for a formula is
// made a text.
func (a Attendance) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write(columns); err != nil {
		return fmt.Errorf("write attendance as CSV: %w", err)
	}
	for cells := range a.rows() {
		for i := range cells {
			cells[i] = harmless(cells[i])
		}
		if err := out.Write(cells); err != nil {
			return fmt.Errorf("write attendance as CSV: %w", err)
		}
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write attendance as CSV: %w", err)
	}
	return nil
}

// WriteXLSX writes the days as a workbook of one sheet, all cells texts.
func (a Attendance) WriteXLSX(w io.Writer) error {
	book := excelize.NewFile()
	defer book.Close()
	if err := a.fill(book); err != nil {
		return fmt.Errorf("write attendance as XLSX: %w", err)
	}
	if err := book.Write(w); err != nil {
		return fmt.Errorf("write attendance as XLSX: %w", err)
	}
	return nil
}

func (a Attendance) fill(book *excelize.File) error {
	const sheet = "attendance"
	if err := book.SetSheetName(book.GetSheetName(0), sheet); err != nil {
		return err
	}
	out, err := book.NewStreamWriter(sheet)
	if err != nil {
		return err
	}
	line := 0
	write := func(cells []string) error {
		line++
		values := make([]any, len(cells))
		for i, cell := range cells {
			values[i] = cell
		}
		return out.SetRow("A"+strconv.Itoa(line), values)
	}
	frozen := excelize.Panes{Freeze: true, YSplit: 1, TopLeftCell: "A2", ActivePane: "bottomLeft"}
	if err := out.SetPanes(&frozen); err != nil {
		return err
	}
	if err := write(columns); err != nil {
		return err
	}
	for cells := range a.rows() {
		if err := write(cells); err != nil {
			return err
		}
	}
	return out.Flush()
}

// rows yields the cells of each day.
func (a Attendance) rows() iter.Seq[[]string] {
	members := make(map[ledger.PersonID]Member, len(a.Members))
	for _, m := range a.Members {
		members[m.Person] = m
	}
	clock := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return at.In(a.Organisation.Location).Format("15:04")
	}
	return func(yield func([]string) bool) {
		for _, day := range a.Days {
			m := members[day.Person]
			late, incomplete := "", "no"
			if day.LateBy > 0 {
				late = strconv.Itoa(int((day.LateBy + time.Minute - 1) / time.Minute))
			}
			if day.Incomplete {
				incomplete = "yes"
			}
			if !yield([]string{
				day.Date.Format(time.DateOnly), string(m.Kind), m.Group, m.FamilyName, m.GivenName, m.Patronymic,
				string(day.Status), clock(day.FirstIn), clock(day.LastOut), late, incomplete, day.Reason,
			}) {
				return
			}
		}
	}
}

// harmless keeps spreadsheets from running a cell as a formula.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
