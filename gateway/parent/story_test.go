package parent_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/access/door"
	"zvonok/gateway/delivery"
	"zvonok/gateway/parent"
	"zvonok/gateway/subscription"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
)

// sees answers whether somebody may see a child.
func (c caller) sees(child string) bool {
	c.Helper()
	switch r := c.call(http.MethodGet, c.path(child, ""), nil); r.status {
	case http.StatusOK:
		return true
	case http.StatusNotFound:
		return false
	default:
		c.Fatalf("looking at %s: %d %s", child, r.status, r.body)
		return false
	}
}

// invitation is what a mother types to invite her sister.
func (w *world) invitation(phone string, children ...string) parent.InvitationWish {
	wish := parent.InvitationWish{Phone: phone, FamilyName: "Серова"}
	for _, child := range children {
		wish.Children = append(wish.Children, int64(w.people[child]))
	}
	return wish
}

// R57, R58, R59, R60, R61, R62, R63, R64, D12: from the mother's invitation to the aunt's first message,
// within a minute and without a visit to the school.
func TestAnInvitedAuntSeesTheChildWithinAMinute(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	wish := w.invitation("8 900 000 00 77", "masha")

	var check parent.CheckView
	mother.want(http.StatusOK, http.MethodPost, "/invitations/check", wish).into(t, &check)
	if check.Service != "Проход и питание" || check.Phone != stranger || check.FamilyName != "Серова" ||
		!slices.Equal(check.Children, []string{"Петрова Маша"}) {
		t.Errorf("the mother checks %+v", check)
	}
	if n := one[int](w, `SELECT count(*) FROM access.invitation`); n != 0 {
		t.Error("checking has invited")
	}
	var sent parent.InvitationView
	mother.want(http.StatusCreated, http.MethodPost, "/invitations", wish).into(t, &sent)
	if sent.State != "pending" || !sent.ExpiresAt.Equal(noon.Add(7*24*time.Hour)) {
		t.Errorf("the mother has sent %+v", sent)
	}
	if texts := w.texts(stranger); len(texts) != 1 || texts[0] != "Ольга П. приглашает: Проход и питание. Ответ на сайте до 30.11" {
		t.Fatalf("the aunt reads %q", texts)
	}
	// Sending it again is the same invitation, and no second SMS.
	mother.want(http.StatusCreated, http.MethodPost, "/invitations", wish)
	if n := len(w.texts(stranger)); n != 1 {
		t.Errorf("the aunt has %d messages", n)
	}

	w.pass(20 * time.Second)
	aunt := w.signIn(stranger)
	if aunt.sees("masha") {
		t.Error("the aunt sees the child before she has accepted")
	}
	var box parent.InvitationsView
	aunt.get("/invitations", &box)
	if len(box.Waiting) != 1 || box.Waiting[0].Inviter != "Ольга Петрова" || box.Waiting[0].Children != 1 {
		t.Fatalf("in the aunt's cabinet waits %+v", box)
	}
	accept := fmt.Sprintf("/invitations/%d/acceptance", box.Waiting[0].ID)
	aunt.want(http.StatusUnprocessableEntity, http.MethodPost, accept, parent.AcceptanceWish{FamilyName: "Ветрова", GivenName: "Инна"})
	w.pass(20 * time.Second)
	var accepted parent.AcceptanceView
	aunt.want(http.StatusOK, http.MethodPost, accept, parent.AcceptanceWish{FamilyName: "серова", GivenName: "Инна"}).into(t, &accepted)
	if !slices.Equal(accepted.Children, []int64{int64(w.people["masha"])}) {
		t.Errorf("accepted is %+v", accepted)
	}
	var children parent.ChildrenView
	aunt.get("/children", &children)
	if len(children.Children) != 1 || children.Children[0].GivenName != "Маша" || children.Children[0].Role != "trusted" {
		t.Errorf("the aunt sees %+v", children)
	}
	var wishes parent.WishesView
	aunt.get(w.path("masha", "/subscriptions"), &wishes)
	if !slices.Contains(wishes.Subscriptions, parent.SubscriptionView{Topic: "pass", Channel: "sms", Mode: "now"}) {
		t.Errorf("the aunt begins with the wishes %+v", wishes)
	}
	before := len(w.texts(stranger))
	w.tap("masha", door.Out)
	if texts := w.texts(stranger); len(texts) != before+1 || !strings.HasPrefix(texts[before], "Выход 13:30 Маша П.") {
		t.Errorf("the aunt is told %q", texts[before:])
	}
	var circle parent.CircleView
	mother.get(w.path("masha", "/representatives"), &circle)
	i := slices.IndexFunc(circle.Representatives, func(m parent.MemberView) bool { return m.Name == "серова Инна" })
	if i < 0 || circle.Representatives[i].Role != "trusted" || strings.Contains(fmt.Sprint(circle), stranger) {
		t.Errorf("the mother sees the list %+v", circle)
	}
	mother.get("/invitations", &box)
	if len(box.Made) != 1 || box.Made[0].State != "accepted" {
		t.Errorf("the mother's invitations are %+v", box.Made)
	}
}

// D12, V8.3: who is excluded is out with the next request, and what waits to be
// sent is not sent.
func TestAnExcludedPersonIsOutAtOnce(t *testing.T) {
	w := newWorld(t)
	mother, granny := w.signIn(olga), w.signIn(anna)
	if !granny.sees("masha") {
		t.Fatal("granny does not see the child")
	}
	before := len(w.texts(anna))
	w.tap("masha", door.Out)
	if len(w.texts(anna)) != before+1 {
		t.Fatal("granny is not told")
	}
	var circle parent.CircleView
	mother.get(w.path("masha", "/representatives"), &circle)
	i := slices.IndexFunc(circle.Representatives, func(m parent.MemberView) bool { return m.Role == "trusted" })
	mother.want(http.StatusNoContent, http.MethodDelete, w.path("masha", fmt.Sprintf("/representatives/%d", circle.Representatives[i].ID)), nil)

	if granny.sees("masha") {
		t.Error("granny still sees the child")
	}
	if texts := w.texts(anna); len(texts) != before {
		t.Errorf("what waited is still to be sent: %q", texts)
	}
	var children parent.ChildrenView
	granny.get("/children", &children)
	if len(children.Children) != 0 {
		t.Errorf("granny's children are %+v", children)
	}
	var messages parent.MessagesView
	granny.get("/messages", &messages)
	for _, m := range messages.Messages {
		if m.Text != "" || len(m.Children) != 0 || !m.Withheld {
			t.Errorf("granny reads again %+v", m)
		}
	}
	if len(messages.Messages) != 1 {
		t.Errorf("granny's messages are %+v", messages)
	}
	w.pass(time.Hour)
	w.tap("masha", door.In)
	if texts := w.texts(anna); len(texts) != before {
		t.Errorf("granny is told %q", texts[before:])
	}
	// Excluding twice, or somebody who never was, is nothing.
	mother.want(http.StatusNotFound, http.MethodDelete, w.path("masha", fmt.Sprintf("/representatives/%d", circle.Representatives[i].ID)), nil)
	// A mother cannot exclude the father.
	father := slices.IndexFunc(circle.Representatives, func(m parent.MemberView) bool { return m.Name == "Петров Олег" })
	mother.want(http.StatusNotFound, http.MethodDelete, w.path("masha", fmt.Sprintf("/representatives/%d", circle.Representatives[father].ID)), nil)
	if !w.signIn(oleg).sees("masha") {
		t.Error("the father is out")
	}
}

// R2: a trusted person gives the own right up, and nobody else's.
func TestATrustedPersonGivesTheRightUp(t *testing.T) {
	w := newWorld(t)
	granny := w.signIn(anna)
	var circle parent.CircleView
	granny.get(w.path("masha", "/representatives"), &circle)
	for _, m := range circle.Representatives {
		path := w.path("masha", fmt.Sprintf("/representatives/%d", m.ID))
		if m.You {
			defer func() {
				granny.want(http.StatusNoContent, http.MethodDelete, path, nil)
				if granny.sees("masha") {
					t.Error("she still sees the child")
				}
			}()
			continue
		}
		granny.want(http.StatusForbidden, http.MethodDelete, path, nil)
	}
}

// D14: a withdrawal stops views and messages at once, for everybody whose access
// stood on it, the one who withdraws included.
func TestAWithdrawnConsentStopsViewsAndMessages(t *testing.T) {
	w := newWorld(t)
	mother, father, granny := w.signIn(olga), w.signIn(oleg), w.signIn(anna)
	w.tap("masha", door.Out)
	count := func(phone string) int { return len(w.texts(phone)) }
	ofMother, ofGranny := count(olga), count(anna)

	// The father's own consent still carries the family.
	mother.want(http.StatusNoContent, http.MethodDelete, w.path("masha", "/consent"), nil)
	for _, c := range []caller{mother, father, granny} {
		if !c.sees("masha") {
			t.Error("the father's consent carries nobody")
		}
	}
	if count(olga) != ofMother || count(anna) != ofGranny {
		t.Error("messages are kept back although the father's consent is live")
	}
	father.want(http.StatusNoContent, http.MethodDelete, w.path("masha", "/consent"), nil)
	for who, c := range map[string]caller{"the mother": mother, "the father": father, "granny": granny} {
		if c.sees("masha") {
			t.Errorf("%s still sees the child", who)
		}
	}
	if count(olga) != ofMother-1 || count(anna) != ofGranny-1 {
		t.Error("what waited is still to be sent")
	}
	w.pass(time.Hour)
	w.tap("masha", door.In)
	if count(olga) != ofMother-1 || count(anna) != ofGranny-1 {
		t.Error("somebody is told after the withdrawal")
	}
	// The other child is not touched, and the withdrawal is on record.
	if !mother.sees("petya") {
		t.Error("the mother does not see the other child")
	}
	var own parent.ConsentsView
	mother.get("/consents", &own)
	if len(own.Consents) != 2 || !slices.ContainsFunc(own.Consents, func(c parent.ConsentView) bool {
		return c.Child == int64(w.people["masha"]) && !c.Live && c.WithdrawnAt != nil && c.WithdrawnAt.Equal(noon)
	}) {
		t.Errorf("the mother's consents are %+v", own)
	}
	mother.want(http.StatusNoContent, http.MethodDelete, w.path("masha", "/consent"), nil) // twice changes nothing
}

// What waits is kept back in every state in which it could still be sent.
func TestWhatIsOnItsWayIsNotSentASecondTime(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	w.exec(`UPDATE access.consent SET withdrawn_at = $1 WHERE representative_id = (SELECT id FROM access.representative WHERE phone = $2)`,
		noon, strings.TrimPrefix(oleg, "+"))
	w.tap("masha", door.Out)
	w.exec(`UPDATE delivery.delivery SET state = 'unknown' WHERE topic = 'pass'`)
	// A digest for the evening waits, too.
	digest := subscription.SMS
	w.exec(`INSERT INTO delivery.delivery (id, at, event_id, representative_id, topic, channel, address, priority, again, expires_at, body)
		SELECT 5000, $1, 0, id, 'digest', $3, phone, 3, 'later', $1::timestamptz + interval '1 day', 'Маша' FROM access.representative
		 WHERE phone = $2`, noon, strings.TrimPrefix(olga, "+"), digest)
	mother.want(http.StatusNoContent, http.MethodDelete, w.path("masha", "/consent"), nil)
	states := query[string](w, `SELECT topic, state || ' ' || recalled FROM delivery.delivery WHERE address = $1 AND topic <> 'code'`,
		strings.TrimPrefix(olga, "+"))
	if states["pass"] != "unknown true" || states["digest"] != "recalled true" {
		t.Errorf("the messages stand as %v", states)
	}
}

// R53, R54: what a parent chooses works for the next event.
func TestAChoiceWorksForTheNextEvent(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	w.pay("masha", 500_00)
	w.tap("masha", door.In)
	told := len(w.texts(olga))
	path := w.path("masha", "/subscriptions")
	lower, upper := money.Amount(100_00), money.Amount(900_00)
	want := parent.WishesView{
		Subscriptions: []parent.SubscriptionView{
			{Topic: "buffet", Channel: "sms", Mode: "now"},
			{Topic: "pass", Channel: "email", Mode: "day"},
			{Topic: "threshold", Channel: "sms", Mode: "now"},
		},
		Lower: &lower, Upper: &upper,
	}
	var got parent.WishesView
	mother.want(http.StatusOK, http.MethodPut, path, want).into(t, &got)
	if fmt.Sprint(got.Subscriptions, *got.Lower, *got.Upper) != fmt.Sprint(want.Subscriptions, lower, upper) {
		t.Errorf("chosen is %+v", got)
	}
	w.pass(time.Hour)
	w.tap("masha", door.Out)
	if texts := w.texts(olga); len(texts) != told {
		t.Errorf("the pass is told all the same: %q", texts[told:])
	}
	w.pay("masha", 450_00)
	w.eventually("the word on the upper threshold", func() bool {
		return slices.Contains(w.texts(olga), "Маша П.: баланс 950,00 р, достиг 900,00 р")
	})
	// Granny's wishes are her own.
	var hers parent.WishesView
	w.signIn(anna).get(path, &hers)
	if len(hers.Subscriptions) != 1 || hers.Lower != nil {
		t.Errorf("granny's wishes are %+v", hers)
	}
	want.Lower, want.Upper, want.Subscriptions = nil, nil, []parent.SubscriptionView{}
	mother.want(http.StatusOK, http.MethodPut, path, want)
	got = parent.WishesView{}
	mother.get(path, &got)
	if len(got.Subscriptions) != 0 || got.Lower != nil || got.Upper != nil {
		t.Errorf("after choosing nothing: %+v", got)
	}
}

// D2, D15, R62: settings, the health of a phone, and the notification centre.
func TestAParentSetsHowSheIsReached(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	var me parent.SelfView
	wait := 45
	mother.want(http.StatusOK, http.MethodPut, "/settings", parent.SettingsView{
		Language: "en", Translit: false, MergeWait: &wait,
		Fallback: []parent.StepView{{Channel: "sms", Patience: 5}, {Channel: "email", Patience: 10}},
	}).into(t, &me)
	if me.Settings.Language != "en" || len(me.Settings.Fallback) != 2 || me.Settings.Fallback[1].Patience != 10 ||
		me.Settings.MergeWait == nil || *me.Settings.MergeWait != 45 {
		t.Errorf("chosen is %+v", me.Settings)
	}
	w.tap("masha", door.In)
	texts := w.texts(olga)
	if last := texts[len(texts)-1]; !strings.HasPrefix(last, "In 13:30") && !strings.HasPrefix(last, "Entry 13:30") {
		t.Errorf("the next message is %q", last)
	}
	waits := one[time.Duration](w, `
		SELECT j.scheduled_at - $1::timestamptz FROM river.river_job j JOIN delivery.delivery d ON j.args->'ids' @> to_jsonb(d.id)
		 WHERE j.kind = 'sms' AND d.topic = 'pass' AND d.address = $2`, noon, strings.TrimPrefix(olga, "+"))
	if waits != 45*time.Second {
		t.Errorf("a message of a mother of two waits %s", waits)
	}
	w.must(delivery.OptOut(t.Context(), w.pool, subscription.SMS, strings.TrimPrefix(olga, "+"), "stop", noon))
	mother.get("/me", &me)
	if !me.SMS.OptedOut {
		t.Error("STOP is not shown")
	}
	mother.want(http.StatusNoContent, http.MethodPost, "/channels/sms/resumption", nil)
	me = parent.SelfView{}
	mother.get("/me", &me)
	if me.SMS.OptedOut {
		t.Error("messages do not come again")
	}
	for _, bad := range []string{
		`{"language":"de","translit":false,"fallback":[],"merge_wait_seconds":null}`,
		`{"language":"ru","translit":false,"fallback":[{"channel":"sms","patience_minutes":5},{"channel":"sms","patience_minutes":5}],"merge_wait_seconds":null}`,
		`{"language":"ru","translit":false,"fallback":[],"merge_wait_seconds":91}`,
		`{"language":"ru","translit":false,"fallback":[{"channel":"pigeon","patience_minutes":5}],"merge_wait_seconds":1}`,
	} {
		mother.want(http.StatusUnprocessableEntity, http.MethodPut, "/settings", bad)
	}
}

// R11, R43, R44, R45, R46, R54: a day of a child as its mother sees it on
// «Посещение и питание», and as a trusted person does (D5); by a bearer token, as a
// mobile application asks.
func TestAParentSeesADayAtSchool(t *testing.T) {
	w := newWorld(t)
	mother, granny := w.signIn(olga), w.signIn(anna)
	w.pass(-5 * time.Hour)
	w.tap("masha", door.In)
	w.pass(5 * time.Hour)
	w.pay("masha", 300_00)
	w.sell(meal.Sale{Person: w.people["masha"], Kind: meal.Subsidised, Meal: "breakfast", Total: 95_00})
	w.sell(meal.Sale{Person: w.people["masha"], Kind: meal.Hot, Meal: "lunch", Total: 65_00})
	w.sell(meal.Sale{Person: w.people["masha"], Kind: meal.Buffet, Total: 70_00, Items: []meal.Item{
		{Code: "b12", Name: "Булочка", Quantity: 2, Price: 35_00},
	}})
	w.tap("masha", door.Out)

	var child parent.ChildView
	mother.get(w.path("masha", ""), &child)
	if child.School != "Шк 1" || child.Group != "1А" || child.Benefit != "breakfast" || child.Wallet.Balance != 165_00 ||
		child.Wallet.Account != "00101519" || child.Visit.State != "away" || child.Visit.Date != "2026-11-23" {
		t.Errorf("the child is %+v, %+v, %+v", child, child.Wallet, child.Visit)
	}
	var visits parent.VisitsView
	mother.get(w.path("masha", "/visits"), &visits)
	if len(visits.Days) != 1 || len(visits.Days[0].Passes) != 2 || visits.Days[0].Passes[0].Direction != "in" ||
		visits.Days[0].FirstIn.Format("15:04 Z07:00") != "08:30 +03:00" || visits.Days[0].Incomplete {
		t.Errorf("the visits are %+v", visits)
	}
	var meals parent.MealsView
	mother.get(w.path("masha", "/meals"), &meals)
	if len(meals.Days) != 1 || meals.Days[0].Spent != 135_00 || meals.Days[0].Kcal != 250.5 || len(meals.Days[0].Meals) != 3 {
		t.Fatalf("the meals are %+v", meals)
	}
	kinds := map[string]parent.EatenView{}
	for _, m := range meals.Days[0].Meals {
		kinds[m.Kind] = m
	}
	if lunch := kinds["hot"]; len(lunch.Dishes) != 2 || lunch.Dishes[0].Name != "Борщ" || *lunch.Dishes[0].Kcal != 180.5 ||
		!slices.Equal(lunch.Dishes[1].Allergens, []string{"глютен"}) || *lunch.Total != 65_00 {
		t.Errorf("lunch is %+v", lunch)
	}
	if bun := kinds["buffet"]; len(bun.Items) != 1 || bun.Items[0] != (parent.ItemView{Name: "Булочка", Quantity: 2, Price: 35_00}) {
		t.Errorf("the purchase is %+v", bun)
	}
	if breakfast := kinds["subsidised"]; breakfast.Total != nil {
		t.Errorf("the child has paid for %+v", breakfast)
	}
	var movements parent.MovementsView
	mother.get(w.path("masha", "/movements"), &movements)
	var lines []string
	for _, m := range movements.Movements {
		lines = append(lines, fmt.Sprint(m.Number, " ", m.Kind, " ", m.Amount, " ", m.After, " ", m.Bank))
	}
	if want := []string{"3 buffet -70.00 165.00 ", "2 hot -65.00 235.00 ", "1 topup 300.00 300.00 mkb"}; !slices.Equal(lines, want) {
		t.Errorf("the movements are %q", lines)
	}
	var topup parent.TopUpView
	mother.get(w.path("masha", "/topup"), &topup)
	if topup.Account != "00101519" || topup.PaymentCode != "916" || topup.INN != "7700000009" {
		t.Errorf("to top up: %+v", topup)
	}

	// The benefit is nobody's business but the own representatives'.
	for _, path := range []string{"", "/meals", "/visits", "/movements", "/menu", "/rules"} {
		r := granny.want(http.StatusOK, http.MethodGet, w.path("masha", path), nil)
		for _, word := range []string{"benefit", "subsidised", "льгот"} {
			if strings.Contains(r.body, word) {
				t.Errorf("a trusted person reads %q in %s", word, r.body)
			}
		}
	}
	granny.get(w.path("masha", "/meals"), &meals)
	if meals.Days[0].Spent != 70_00 {
		t.Errorf("she reads how much was spent on hot meals: %s", meals.Days[0].Spent)
	}

	// What was eaten at the former school is still made of what that school cooked.
	w.exec(`INSERT INTO meal.menu (organisation_id, day, meal, dish, price)
	        SELECT o.id, '2026-11-23', 'lunch', 'Плов', 6500 FROM ledger.organisation o WHERE o.code = 's2'`)
	w.exec(`UPDATE ledger.person SET organisation_id = (SELECT id FROM ledger.organisation WHERE code = 's2') WHERE id = $1`,
		int64(w.people["masha"]))
	mother.get(w.path("masha", "/meals"), &meals)
	for _, m := range meals.Days[0].Meals {
		if m.Kind == "hot" && (len(m.Dishes) != 2 || m.Dishes[0].Name != "Борщ") {
			t.Errorf("after a move lunch was %+v", m.Dishes)
		}
	}
}

// R46: the parent influences the choice of meals: menu, preorder, limit, bans.
func TestAParentChoosesMeals(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	w.pay("masha", 200_00)
	var menu parent.MenuView
	mother.get(w.path("masha", "/menu?from=2026-11-23&to=2026-11-29"), &menu)
	if len(menu.Days) != 2 || menu.Days[1].Date != "2026-11-27" || menu.Days[1].Meals[0].Price != 150_00 ||
		menu.Days[1].Meals[0].Dishes[0].Name != "Плов" {
		t.Errorf("the menu is %+v", menu)
	}
	var answer parent.OrderAnswer
	mother.want(http.StatusOK, http.MethodPost, w.path("masha", "/orders"), parent.OrderWish{Orders: []parent.WishedMeal{
		{Date: "2026-11-27", Meal: "lunch"},
		{Date: "2026-11-27", Meal: "supper"},
		{Date: "2026-11-23", Meal: "lunch"},
		{Date: "2026-11-27", Meal: "lunch", Dish: "Плов"},
	}}).into(t, &answer)
	var codes []string
	for _, o := range answer.Orders {
		codes = append(codes, o.Code)
	}
	if !slices.Equal(codes, []string{"ordered", "not_on_menu", "too_late", "not_enough"}) {
		t.Errorf("the orders are %q", codes)
	}
	var child parent.ChildView
	mother.get(w.path("masha", ""), &child)
	if child.Wallet.Held != 150_00 || child.Wallet.Available != 50_00 {
		t.Errorf("the wallet is %+v", child.Wallet)
	}
	order := fmt.Sprintf("/orders/%d", answer.Orders[0].ID)
	w.signIn(oleg).want(http.StatusNoContent, http.MethodDelete, w.path("masha", order), nil)
	mother.want(http.StatusNotFound, http.MethodDelete, w.path("masha", order), nil)
	var orders parent.OrdersView
	mother.get(w.path("masha", "/orders?from=2026-11-20&to=2026-11-30"), &orders)
	if !slices.ContainsFunc(orders.Orders, func(o parent.OrderView) bool { return o.ID == answer.Orders[0].ID && o.State == "cancelled" }) {
		t.Errorf("the orders are %+v", orders)
	}

	limit := money.Amount(100_00)
	var rules parent.RulesView
	mother.want(http.StatusOK, http.MethodPut, w.path("masha", "/rules"), parent.RulesWish{
		Limit: &limit, Bans: []parent.BanView{{Kind: "allergen", Value: "Орехи"}, {Kind: "dish", Value: "Кола"}},
	}).into(t, &rules)
	if rules.Limit == nil || *rules.Limit != 100_00 || *rules.Left != 100_00 || len(rules.Bans) != 2 || rules.Bans[0].Value != "орехи" {
		t.Errorf("the rules are %+v", rules)
	}
	rules = parent.RulesView{}
	mother.want(http.StatusOK, http.MethodPut, w.path("masha", "/rules"), `{"limit":null,"bans":[]}`).into(t, &rules)
	if rules.Limit != nil || len(rules.Bans) != 0 {
		t.Errorf("after lifting them: %+v", rules)
	}
	for _, bad := range []string{
		`{"limit":"-1.00","bans":[]}`, `{"limit":"1000000.00","bans":[]}`, `{"limit":"1.005","bans":[]}`, `{"limit":100,"bans":[]}`,
		`{"limit":null,"bans":[{"kind":"colour","value":"red"}]}`, `{"limit":null,"bans":[{"kind":"dish","value":"  "}]}`, `{"bans":null}`,
	} {
		mother.want(http.StatusUnprocessableEntity, http.MethodPut, w.path("masha", "/rules"), bad)
	}
}

// D14: every look is on record, one for each child shown, before it is shown,
// and the family reads it page by page.
func TestTheFamilyReadsWhoLooked(t *testing.T) {
	w := newWorld(t)
	mother, granny := w.signIn(olga), w.signIn(anna)
	mother.want(http.StatusOK, http.MethodGet, "/children", nil)
	w.pass(time.Second)
	granny.want(http.StatusOK, http.MethodGet, w.path("masha", "/visits"), nil)
	w.pass(time.Second)
	w.exec(`INSERT INTO access.view_log (at, child_id, actor_kind, actor_id, what, channel)
		VALUES ($1, $2, 'staff', 'teacher', 'attendance', 'staff'), ($1, $2, 'partner', 'mkb', 'name', 'bank')`,
		w.now(), w.people["masha"])
	w.pass(time.Second)
	var log parent.LogView
	mother.get(w.path("masha", "/log"), &log)
	var lines []string
	for _, l := range log.Views {
		lines = append(lines, fmt.Sprintf("%s %s %t %s %s", l.Who, l.Name, l.You, l.What, l.Channel))
	}
	want := []string{
		"partner mkb false name bank", "staff Строгова Вера Ильинична false attendance staff",
		"representative Соколова Анна false visits api", "representative Петрова Ольга true child api",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("the log is %q", lines)
	}
	mother.get(w.path("petya", "/log"), &log)
	if len(log.Views) != 1 {
		t.Errorf("of the other child: %+v", log)
	}
	// It goes on for ever, page by page.
	w.exec(`INSERT INTO access.view_log (at, child_id, actor_kind, actor_id, what, channel)
		SELECT $1, $2, 'system', n::text, 'test', 'api' FROM generate_series(1, 250) n`, noon.AddDate(0, -1, 0), w.people["petya"])
	seen, next := 0, ""
	for {
		log = parent.LogView{}
		mother.get(w.path("petya", "/log?before="+next), &log)
		seen += len(log.Views)
		if next = log.Next; next == "" {
			break
		}
	}
	if seen != 251 {
		t.Errorf("the pages show %d of 251 looks", seen)
	}
	mother.want(http.StatusUnprocessableEntity, http.MethodGet, w.path("petya", "/log?before=1%27--"), nil)
}

// R62: what was sent, page by page, and what became of it.
func TestAParentReadsHerMessagesAgain(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	w.tap("masha", door.In)
	w.exec(`UPDATE delivery.delivery SET state = 'delivered', settled_at = $1 WHERE topic = 'pass'`, noon)
	w.exec(`INSERT INTO delivery.delivery (id, at, event_id, representative_id, topic, channel, address, priority, again, expires_at, body)
		SELECT 5000 + n, $1::timestamptz - interval '1 hour' * (n / 3), 0, r.id, 'digest', 'sms', r.phone, 3, 'later', $1, 'Сводка ' || n
		  FROM generate_series(1, 120) n, access.representative r WHERE r.phone = $2`, noon.Add(-time.Hour), strings.TrimPrefix(olga, "+"))
	var page parent.MessagesView
	mother.get("/messages", &page)
	if m := page.Messages[0]; len(page.Messages) != 50 || m.Topic != "pass" || m.State != "delivered" || !strings.HasPrefix(m.Text, "Вход") ||
		!slices.Equal(m.Children, []int64{int64(w.people["masha"])}) {
		t.Errorf("the newest message is %+v", page.Messages[0])
	}
	seen := map[int64]bool{}
	for next := ""; ; {
		page = parent.MessagesView{}
		mother.get("/messages?before="+next, &page)
		for _, m := range page.Messages {
			seen[m.ID] = true
			if sixDigits.MatchString(m.Text) || m.Topic == "code" {
				t.Errorf("a code is shown: %+v", m)
			}
		}
		if next = page.Next; next == "" {
			break
		}
	}
	if len(seen) != 121 {
		t.Errorf("the pages show %d of 121 messages", len(seen))
	}
	// The look at her messages about Masha is a look at Masha.
	if n := one[int](w, `SELECT count(*) FROM access.view_log WHERE what = 'messages' AND child_id = $1`, w.people["masha"]); n == 0 {
		t.Error("reading messages is not on record")
	}
}
