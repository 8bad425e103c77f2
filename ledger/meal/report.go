package meal

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/xuri/excelize/v2"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// TurnoverLine is what an organisation's canteen sold of one kind and meal on an
// accounting day.
type TurnoverLine struct {
	Day          time.Time `json:"day"`
	Organisation string    `json:"org_id"` // the registry's id
	Name         string    `json:"organisation"`
	Kind         Kind      `json:"kind"`
	Meal         string    `json:"meal"`
	// Booked is who pays: wallet, budget or loss.
	Booked string `json:"paid_by"`
	// Sales and Total count and sum the sales, Late those of them that were made
	// on an earlier day, which was closed; Returns and Returned what was taken
	// back on this day, of whatever day the sale was.
	Sales    int64        `json:"sales"`
	Late     int64        `json:"late"`
	Total    money.Amount `json:"total"`
	Returns  int64        `json:"returns"`
	Returned money.Amount `json:"returned"`
}

// MarshalJSON writes the day as a date, and what is owed.
func (l TurnoverLine) MarshalJSON() ([]byte, error) {
	type plain TurnoverLine
	return json.Marshal(struct {
		plain
		Day string       `json:"day"`
		Net money.Amount `json:"net"`
	}{plain(l), l.Day.Format(time.DateOnly), l.Net()})
}

// Net is what the provider is owed for the line.
func (l TurnoverLine) Net() money.Amount { return l.Total - l.Returned }

// Turnover returns what was booked for a payee from one accounting day to
// another, both included, by day, organisation, kind and meal. The net sums are
// what the payee's accounts moved in the book, so that a closed day's report
// never changes.
func Turnover(ctx context.Context, q pg.Querier, payee ledger.PayeeCode, from, to time.Time) ([]TurnoverLine, error) {
	rows, err := q.Query(ctx, `
		SELECT l.day, o.code, o.name, l.kind, l.meal, l.booked, count(l.sold), count(*) FILTER (WHERE l.late),
		       coalesce(sum(l.sold), 0)::bigint, count(l.returned), coalesce(sum(l.returned), 0)::bigint
		  FROM (SELECT s.booked_on AS day, s.organisation_id, s.kind, s.meal, s.booked, s.total AS sold,
		               s.day < s.booked_on AS late, NULL::bigint AS returned
		          FROM meal.sale s
		         WHERE s.payee_code = $1 AND s.booked_on BETWEEN $2 AND $3
		        UNION ALL
		        SELECT r.booked_on, s.organisation_id, s.kind, s.meal, s.booked, NULL, false, r.total
		          FROM meal.reversal r
		          JOIN meal.sale s ON s.event_id = r.sale_event_id
		         WHERE s.payee_code = $1 AND r.booked_on BETWEEN $2 AND $3) AS l
		  JOIN ledger.organisation o ON o.id = l.organisation_id
		 GROUP BY l.day, o.code, o.name, l.kind, l.meal, l.booked
		 ORDER BY l.day, o.code, l.kind, l.meal, l.booked`, string(payee), from, to)
	if err != nil {
		return nil, fmt.Errorf("read the turnover: %w", err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowToStructByPos[TurnoverLine])
	if err != nil {
		return nil, fmt.Errorf("read the turnover: %w", err)
	}
	return lines, nil
}

// Sheet is a report as rows and columns, to be written as CSV or as a
// spreadsheet. A cell is a text, a date, a whole number or a sum of money.
type Sheet struct {
	Name   string
	Header []string
	Rows   [][]any
}

// TurnoverSheet makes a report of the lines.
func TurnoverSheet(lines []TurnoverLine) Sheet {
	s := Sheet{Name: "turnover", Header: []string{
		"day", "org_id", "organisation", "kind", "meal", "paid_by", "sales", "late", "total", "returns", "returned", "net",
	}}
	for _, l := range lines {
		s.Rows = append(s.Rows, []any{
			l.Day, l.Organisation, l.Name, string(l.Kind), l.Meal, l.Booked, l.Sales, l.Late, l.Total, l.Returns, l.Returned, l.Net(),
		})
	}
	return s
}

// OrdersSheet makes a report of what is ordered for a day.
func OrdersSheet(day time.Time, lines []SheetLine) Sheet {
	s := Sheet{Name: "orders", Header: []string{"day", "org_id", "organisation", "meal", "dish", "portions", "total"}}
	for _, l := range lines {
		s.Rows = append(s.Rows, []any{day, l.Organisation, l.Name, l.Meal, l.Dish, l.Portions, l.Total})
	}
	return s
}

// MovesSheet makes a report of wallets that changed their organisation or payee.
func MovesSheet(moves []ledger.Move) Sheet {
	s := Sheet{Name: "moves", Header: []string{
		"day", "account", "from_org", "to_org", "from_payee", "to_payee", "balance", "by",
	}}
	for _, m := range moves {
		s.Rows = append(s.Rows, []any{
			m.At, m.Number, m.FromOrganisation, m.ToOrganisation, string(m.FromPayee), string(m.ToPayee), m.Balance, m.Actor,
		})
	}
	return s
}

// Text returns a cell as text: dates as 2026-11-22, sums with a dot.
func (Sheet) Text(cell any) string {
	if day, ok := cell.(time.Time); ok {
		return day.Format(time.DateOnly)
	}
	return fmt.Sprint(cell)
}

// harmless keeps spreadsheets from running what a till or a registry has written
// as a formula. A sum below zero is a number and stays one.
func harmless(cell any, text string) string {
	if _, typed := cell.(string); typed && text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

// WriteCSV writes the report as UTF-8 CSV with a header line. A text that a
// spreadsheet would take for a formula is made plain (ASVS V1.2.10).
func (s Sheet) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	records := [][]string{s.Header}
	for _, row := range s.Rows {
		record := make([]string, len(row))
		for i, cell := range row {
			record[i] = harmless(cell, s.Text(cell))
		}
		records = append(records, record)
	}
	if err := out.WriteAll(records); err != nil {
		return fmt.Errorf("write the report of %s: %w", s.Name, err)
	}
	return nil
}

// WriteXLSX writes the report as a spreadsheet with one sheet. Sums are numbers
// of roubles with two decimals; a last row adds the numbers up.
func (s Sheet) WriteXLSX(w io.Writer) error {
	if err := s.writeXLSX(w); err != nil {
		return fmt.Errorf("write the report of %s: %w", s.Name, err)
	}
	return nil
}

func (s Sheet) writeXLSX(w io.Writer) error {
	file := excelize.NewFile()
	defer file.Close() // it is in memory: nothing is lost by an error
	if err := file.SetSheetName("Sheet1", s.Name); err != nil {
		return err
	}
	date, err := file.NewStyle(&excelize.Style{NumFmt: 14}) // a date as the reader's locale writes it
	if err != nil {
		return err
	}
	sum, err := file.NewStyle(&excelize.Style{NumFmt: 4}) // #,##0.00
	if err != nil {
		return err
	}
	bold, err := file.NewStyle(&excelize.Style{Font: &excelize.Font{Bold: true}})
	if err != nil {
		return err
	}
	stream, err := file.NewStreamWriter(s.Name)
	if err != nil {
		return err
	}
	cell := func(value any) excelize.Cell {
		switch v := value.(type) {
		case time.Time:
			return excelize.Cell{StyleID: date, Value: v}
		case money.Amount:
			return excelize.Cell{StyleID: sum, Value: float64(v) / float64(money.Rouble)} // only shown, never read back
		}
		return excelize.Cell{Value: value}
	}
	rows := make([][]any, 0, len(s.Rows)+2)
	header := make([]any, len(s.Header))
	for i, name := range s.Header {
		header[i] = excelize.Cell{StyleID: bold, Value: name}
	}
	rows = append(rows, header)
	for _, row := range append(slices.Clone(s.Rows), s.totals()) {
		cells := make([]any, len(row))
		for i, value := range row {
			cells[i] = cell(value)
		}
		rows = append(rows, cells)
	}
	for i, row := range rows {
		if err := stream.SetRow("A"+strconv.Itoa(i+1), row); err != nil {
			return err
		}
	}
	if err := stream.Flush(); err != nil {
		return err
	}
	return file.Write(w)
}

// totals adds the columns of numbers up; it is empty when there are no rows.
func (s Sheet) totals() []any {
	if len(s.Rows) == 0 {
		return nil
	}
	total := make([]any, len(s.Header))
	for i := range total {
		total[i] = ""
	}
	total[0] = "total"
	for _, row := range s.Rows {
		for i, value := range row {
			switch v := value.(type) {
			case int64:
				before, _ := total[i].(int64)
				total[i] = before + v
			case money.Amount:
				before, _ := total[i].(money.Amount)
				total[i] = before + v
			}
		}
	}
	return total
}
