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
	return tag.RowsAffected(), nil
}
