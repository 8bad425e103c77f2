package meal

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/registry"
)

// maxCode bounds a till's code of a product, in characters.
const maxCode = 64

// Product is what a buffet sells under a code of its till.
type Product struct {
	Organisation ledger.OrganisationID
	Code         string
	Name         string
	Category     string
	Allergens    []string
}

// productRow is a line of products.csv.
type productRow struct {
	organisation string
	product      Product
}

var productTable = registry.Table[productRow]{
	File:    registry.Products,
	Columns: []string{"org_id", "code", "name", "category", "allergens"},
	Parse: func(line *registry.Line) productRow {
		row := productRow{line.Code("org_id"), Product{
			Code: line.Required("code", maxCode), Name: line.Required("name", maxDish),
			Category: fold(line.Text("category")), Allergens: splitWords(line.Text("allergens")),
		}}
		if len(row.product.Allergens) > maxAllergens {
			line.Fail("allergens", fmt.Sprintf("are more than %d", maxAllergens))
		}
		return row
	},
}

// importProducts imports products.csv: what buffets sell, matched by
// organisation and code, so that bans of categories and allergens know it.
func importProducts(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) (err error) {
	sound := report.OK()
	reader, err := productTable.Read(folder, report)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	var rows []productRow
	var lines []int
	var codes []string
	for reader.Next() {
		row := reader.Row()
		rows, lines, codes = append(rows, row), append(lines, reader.Number()), append(codes, row.organisation)
	}
	if err := reader.Err(); err != nil {
		return err
	}
	organisations, err := ledger.OrganisationsByCode(ctx, tx, codes)
	if err != nil {
		return err
	}
	type name struct{ organisation, code string }
	first := map[name]int{}
	products := make([]Product, len(rows))
	for i, row := range rows {
		id, known := organisations[row.organisation]
		if !known && sound {
			report.Add(registry.Products, lines[i], fmt.Sprintf("org_id %q is not known", row.organisation))
		}
		key := name{row.organisation, row.product.Code}
		if line, again := first[key]; again {
			report.Add(registry.Products, lines[i], fmt.Sprintf("code %q is given on line %d already", row.product.Code, line))
		} else {
			first[key] = lines[i]
		}
		products[i] = row.product
		products[i].Organisation = id
	}
	if !report.OK() || !folder.Has(registry.Products) {
		return nil
	}
	count, err := SetProducts(ctx, tx, products)
	if err != nil {
		return err
	}
	report.Done(count)
	return nil
}

// SetProducts writes down what buffets sell. A code that is known is changed;
// none comes twice.
func SetProducts(ctx context.Context, tx pgx.Tx, list []Product) (registry.Count, error) {
	n := len(list)
	organisations, codes, names, categories := make([]int64, n), make([]string, n), make([]string, n), make([]string, n)
	allergens := make([]string, n)
	for i, p := range list {
		organisations[i], codes[i], names[i], categories[i] = int64(p.Organisation), p.Code, p.Name, p.Category
		allergens[i] = strings.Join(splitWords(strings.Join(p.Allergens, ";")), ";")
	}
	count := registry.Count{File: registry.Products}
	if err := tx.QueryRow(ctx, `
		WITH line AS MATERIALIZED (
			SELECT i.organisation_id, i.code, i.name, i.category, string_to_array(i.allergens, ';') AS allergens,
			       p.code IS NULL AS fresh,
			       (p.name, p.category, p.allergens) IS DISTINCT FROM
			       (i.name, i.category, string_to_array(i.allergens, ';')) AS differs
			  FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])
			       AS i (organisation_id, code, name, category, allergens)
			  LEFT JOIN meal.product p ON p.organisation_id = i.organisation_id AND p.code = i.code
		), written AS (
			INSERT INTO meal.product (organisation_id, code, name, category, allergens)
			SELECT l.organisation_id, l.code, l.name, l.category, l.allergens FROM line l WHERE l.fresh OR l.differs
			ON CONFLICT (organisation_id, code) DO UPDATE
			   SET name = excluded.name, category = excluded.category, allergens = excluded.allergens
		)
		SELECT count(*) FILTER (WHERE l.fresh), count(*) FILTER (WHERE l.differs AND NOT l.fresh), count(*) FILTER (WHERE NOT l.differs)
		  FROM line l`, organisations, codes, names, categories, allergens).
		Scan(&count.Added, &count.Changed, &count.Left); err != nil {
		return count, fmt.Errorf("set products: %w", err)
	}
	return count, nil
}
