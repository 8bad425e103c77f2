package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// keepNames is how long the name of somebody who has left is kept: the purpose is
// reached then, and 30 days are allowed (152-FZ, article 21); a run is due once a day.
const keepNames = 29 * 24 * time.Hour

// keepBenefits is how long it is kept which meals the city paid for before a
// change: what a till that was offline reports later than that is judged by the
// register as it stands.
const keepBenefits = 100 * 24 * time.Hour

// pseudonym stands for the names of somebody who has left.
const pseudonym = "—"

// Pseudonymise takes the names and groups of people who left longer than
// keepNames ago, and returns how many they were. Accounts and postings stay as
// they are (accounting, five years) and name nobody but the registry's id. Who
// still has money or a debt keeps the name until it is settled.
func Pseudonymise(ctx context.Context, tx pgx.Tx, now time.Time) (int64, error) {
	tag, err := tx.Exec(ctx, `
		UPDATE ledger.person p
		   SET family_name = $2, given_name = $2, patronymic = '', group_name = '', benefit = 'none'
		 WHERE p.left_on < $1 AND p.family_name <> $2
		   AND NOT EXISTS (SELECT FROM ledger.account a JOIN ledger.balance b ON b.account_id = a.id
		                    WHERE a.person_id = p.id AND (b.posted <> 0 OR b.held <> 0))`,
		now.Add(-keepNames), pseudonym)
	if err != nil {
		return 0, fmt.Errorf("pseudonymise who has left: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		DELETE FROM ledger.benefit_past b
		 WHERE b.until < $1 OR EXISTS (SELECT FROM ledger.person p WHERE p.id = b.person_id AND p.family_name = $2)`,
		now.Add(-keepBenefits), pseudonym); err != nil {
		return 0, fmt.Errorf("forget benefits of the past: %w", err)
	}
	return tag.RowsAffected(), nil
}
