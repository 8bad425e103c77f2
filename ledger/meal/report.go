package meal

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/xuri/excelize/v2"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// TurnoverLine is what an organisation's canteen sold of one kind and meal on a day.
type TurnoverLine struct {
	Day          time.Time
	Organisation string // the registry's id
	Name         string
	Kind         Kind
	Meal         string
	// Booked is who pays: wallet, budget or loss.
	Booked string
	// Sales and Total count and sum all sales; Returns and Returned those of
	// them that were taken back.
	Sales    int64
	Total    money.Amount
	Returns  int64
	Returned money.Amount
}

// Net is what the provider is owed for the line.
func (l TurnoverLine) Net() money.Amount { return l.Total - l.Returned }

// Turnover returns what was sold for a payee from one day to another, both
// included, by day, organisation, kind and meal. Returns count on the day of
// the sale.
func Turnover(ctx context.Context, q pg.Querier, payee ledger.PayeeCode, from, to time.Time) ([]TurnoverLine, error) {
	rows, err := q.Query(ctx, `
		SELECT s.day, o.code, o.name, s.kind, s.meal, s.booked, count(*), sum(s.total)::bigint,
		       count(s.reversed_by), coalesce(sum(s.total) FILTER (WHERE s.reversed_by IS NOT NULL), 0)::bigint
		  FROM meal.sale s
		  JOIN ledger.organisation o ON o.id = s.organisation_id
		 WHERE s.payee_code = $1 AND s.day BETWEEN $2 AND $3
		 GROUP BY s.day, o.code, o.name, s.kind, s.meal, s.booked
		 ORDER BY s.day, o.code, s.kind, s.meal, s.booked`, string(payee), from, to)
	if err != nil {
		return nil, fmt.Errorf("read the turnover: %w", err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowToStructByPos[TurnoverLine])
	if err != nil {
		return nil, fmt.Errorf("read the turnover: %w", err)
	}
	return lines, nil
}

var turnoverHeader = []string{
	"day", "org_id", "organisation", "kind", "meal", "paid_by", "sales", "total", "returns", "returned", "net",
}

// WriteTurnoverCSV writes the lines as UTF-8 CSV with a header, sums with a dot.
func WriteTurnoverCSV(w io.Writer, lines []TurnoverLine) error {
	out := csv.NewWriter(w)
	records := [][]string{turnoverHeader}
	for _, l := range lines {
		records = append(records, []string{
			l.Day.Format(time.DateOnly), l.Organisation, l.Name, string(l.Kind), l.Meal, l.Booked,
			strconv.FormatInt(l.Sales, 10), l.Total.String(), strconv.FormatInt(l.Returns, 10), l.Returned.String(),
			l.Net().String(),
		})
	}
	if err := out.WriteAll(records); err != nil {
		return fmt.Errorf("write the turnover: %w", err)
	}
	return nil
}

// WriteTurnoverXLSX writes the lines as a spreadsheet with one sheet. Sums are
// numbers of roubles with two decimals.
func WriteTurnoverXLSX(w io.Writer, lines []TurnoverLine) (err error) {
	const sheet = "turnover"
	file := excelize.NewFile()
	defer file.Close() // it is in memory: nothing is lost by an error
	if err := file.SetSheetName("Sheet1", sheet); err != nil {
		return fmt.Errorf("write the turnover: %w", err)
	}
	date, err := file.NewStyle(&excelize.Style{NumFmt: 14}) // a date as the reader's locale writes it
	if err != nil {
		return fmt.Errorf("write the turnover: %w", err)
	}
	sum, err := file.NewStyle(&excelize.Style{NumFmt: 4}) // #,##0.00
	if err != nil {
		return fmt.Errorf("write the turnover: %w", err)
	}
	stream, err := file.NewStreamWriter(sheet)
	if err != nil {
		return fmt.Errorf("write the turnover: %w", err)
	}
	header := make([]any, len(turnoverHeader))
	for i, name := range turnoverHeader {
		header[i] = name
	}
	rows := [][]any{header}
	roubles := func(a money.Amount) excelize.Cell {
		return excelize.Cell{StyleID: sum, Value: float64(a) / float64(money.Rouble)} // only shown, never read back
	}
	for _, l := range lines {
		rows = append(rows, []any{
			excelize.Cell{StyleID: date, Value: l.Day},
			l.Organisation, l.Name, string(l.Kind), l.Meal, l.Booked,
			l.Sales, roubles(l.Total), l.Returns, roubles(l.Returned), roubles(l.Net()),
		})
	}
	for i, row := range rows {
		if err := stream.SetRow("A"+strconv.Itoa(i+1), row); err != nil {
			return fmt.Errorf("write the turnover: %w", err)
		}
	}
	if err := stream.Flush(); err != nil {
		return fmt.Errorf("write the turnover: %w", err)
	}
	if err := file.Write(w); err != nil {
		return fmt.Errorf("write the turnover: %w", err)
	}
	return nil
}
