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
)

// Sheet is a list that people take into a spreadsheet: presence, attendance by
// person or by group. Columns are named like those of the registry's files.
type Sheet struct {
	Name    string
	Columns []string
	Rows    iter.Seq[[]string]
}

// WriteCSV writes the sheet as UTF-8 CSV with a header line. A cell that a
// spreadsheet would take for a formula is made a text (ASVS V1.2.10).
func (s Sheet) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write(s.Columns); err != nil {
		return fmt.Errorf("write %s as CSV: %w", s.Name, err)
	}
	for cells := range s.Rows {
		for i := range cells {
			cells[i] = harmless(cells[i])
		}
		if err := out.Write(cells); err != nil {
			return fmt.Errorf("write %s as CSV: %w", s.Name, err)
		}
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write %s as CSV: %w", s.Name, err)
	}
	return nil
}

// WriteXLSX writes the sheet as a workbook, all cells texts.
func (s Sheet) WriteXLSX(w io.Writer) error {
	book := excelize.NewFile()
	defer book.Close()
	if err := s.fill(book); err != nil {
		return fmt.Errorf("write %s as XLSX: %w", s.Name, err)
	}
	if err := book.Write(w); err != nil {
		return fmt.Errorf("write %s as XLSX: %w", s.Name, err)
	}
	return nil
}

func (s Sheet) fill(book *excelize.File) error {
	if err := book.SetSheetName(book.GetSheetName(0), s.Name); err != nil {
		return err
	}
	out, err := book.NewStreamWriter(s.Name)
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
	if err := write(s.Columns); err != nil {
		return err
	}
	for cells := range s.Rows {
		if err := write(cells); err != nil {
			return err
		}
	}
	return out.Flush()
}

// clockOf writes a time of day by the organisation's clock, "" for none.
func clockOf(at time.Time, zone *time.Location) string {
	if at.IsZero() {
		return ""
	}
	return at.In(zone).Format("15:04")
}

// LateMinutes is how late somebody came, in begun minutes.
func (d Day) LateMinutes() int { return int((d.LateBy + time.Minute - 1) / time.Minute) }

// Sheet lists the days of the people, times by the organisation's clock.
func (a Attendance) Sheet() Sheet {
	members := make(map[int64]Member, len(a.Members))
	for _, m := range a.Members {
		members[int64(m.Person)] = m
	}
	return Sheet{
		Name: "attendance",
		Columns: []string{
			"date", "kind", "group", "family_name", "given_name", "patronymic",
			"status", "first_in", "last_out", "late_minutes", "incomplete", "reason",
		},
		Rows: func(yield func([]string) bool) {
			for _, day := range a.Days {
				m := members[int64(day.Person)]
				late, incomplete := "", "no"
				if day.LateBy > 0 {
					late = strconv.Itoa(day.LateMinutes())
				}
				if day.Incomplete {
					incomplete = "yes"
				}
				zone := a.Organisation.Location
				if !yield([]string{
					day.Date.Format(time.DateOnly), string(m.Kind), m.Group, m.FamilyName, m.GivenName, m.Patronymic,
					string(day.Status), clockOf(day.FirstIn, zone), clockOf(day.LastOut, zone), late, incomplete, day.Reason,
				}) {
					return
				}
			}
		},
	}
}

// GroupSheet lists the days of the groups.
func (a Attendance) GroupSheet() Sheet {
	return Sheet{
		Name: "groups",
		Columns: []string{
			"date", "kind", "group", "listed", "present", "late", "excused", "missing", "incomplete",
		},
		Rows: func(yield func([]string) bool) {
			for _, g := range a.ByGroup() {
				if !yield([]string{
					g.Date.Format(time.DateOnly), string(g.Kind), g.Group, strconv.Itoa(g.Listed), strconv.Itoa(g.Present),
					strconv.Itoa(g.Late), strconv.Itoa(g.Excused), strconv.Itoa(g.Missing), strconv.Itoa(g.Incomplete),
				}) {
					return
				}
			}
		},
	}
}

// PresenceSheet lists who is inside.
func PresenceSheet(people []Present) Sheet {
	return Sheet{
		Name: "presence",
		Columns: []string{
			"building", "address", "kind", "group", "family_name", "given_name", "patronymic", "since",
		},
		Rows: func(yield func([]string) bool) {
			for _, p := range people {
				if !yield([]string{
					p.Building, p.Address, string(p.Kind), p.Group, p.FamilyName, p.GivenName, p.Patronymic,
					p.Since.Format("15:04"),
				}) {
					return
				}
			}
		},
	}
}

// harmless keeps spreadsheets from running a cell as a formula.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
