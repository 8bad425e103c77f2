package ussd

import (
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"pgregory.net/rapid"

	"zvonok/templates"
	"zvonok/templates/gsm"
)

var (
	russian = templates.Style{Language: templates.RU}
	english = templates.Style{Language: templates.EN}
)

// walk returns all pages of a screen as "9" shows them.
func walk(s Screen, top, alone, latin bool) []page {
	l := newLayout(s, templates.NewUSSDFrame(s.Style), top, alone, latin, usual().Limits)
	pages := []page{l.page(0, "")}
	for !pages[len(pages)-1].last {
		pages = append(pages, l.page(pages[len(pages)-1].next, ""))
	}
	return pages
}

func TestAScreenIsCutIntoPages(t *testing.T) {
	t.Parallel()
	bar := []Choice{
		{Key: "1", Label: "Питание"},
		{Key: "2", Label: "Визиты"},
		{Key: "3", Label: "SMS"},
		{Key: "4", Label: "История"},
		{Key: "5", Label: "Пополнить"},
		{Key: "6", Label: "Язык"},
		{Key: "7", Label: "Доступ"},
	}
	englishBar := []Choice{
		{Key: "1", Label: "Meals"},
		{Key: "2", Label: "Visits"},
		{Key: "3", Label: "SMS"},
		{Key: "4", Label: "History"},
		{Key: "5", Label: "Top up"},
		{Key: "6", Label: "Language"},
		{Key: "7", Label: "Access"},
	}
	tests := []struct {
		what   string
		screen Screen
		top    bool
		alone  bool
		latin  bool
		want   []string
	}{
		{
			what:   "the answer with the leading choices and, where there is room, the key to more",
			screen: Screen{Style: russian, Lines: []string{"Маша П. 143,50 р", "Вход 08:15"}, Bar: bar, Lead: 3},
			top:    true,
			want: []string{
				"Маша П. 143,50 р\nВход 08:15\n1 Питание 2 Визиты 3 SMS 0 Выход 9 Ещё",
				"4 История\n5 Пополнить\n6 Язык\n7 Доступ\n0 Назад",
			},
		},
		{
			what:   "without the key to more when there is none, though it works",
			screen: Screen{Style: russian, Lines: []string{"Маша П. 143,50 р", "Выход 21.11 14:05"}, Bar: bar, Lead: 3},
			top:    true,
			want: []string{
				"Маша П. 143,50 р\nВыход 21.11 14:05\n1 Питание 2 Визиты 3 SMS 0 Выход",
				"4 История\n5 Пополнить\n6 Язык\n7 Доступ\n0 Назад",
			},
		},
		{
			what: "with the key to the menu alone when the answer is longer still",
			screen: Screen{
				Style: russian, Lines: []string{"Александрина-Виктория К. -1143,50 р", "Выход 21.11 14:05"}, Bar: bar, Lead: 3,
			},
			top: true,
			want: []string{
				"Александрина-Виктория К. -1143,50 р\nВыход 21.11 14:05\n9 Меню 0 Выход",
				"1 Питание\n2 Визиты\n3 SMS\n4 История\n5 Пополнить\n6 Язык\n7 Доступ\n0 Назад",
			},
		},
		{
			what: "with fewer choices when the answer is long",
			screen: Screen{
				Style: russian, Lines: []string{"Александрина К. -1143,50 р", "Выход 21.11 14:05"}, Bar: bar, Lead: 3,
			},
			top: true,
			want: []string{
				"Александрина К. -1143,50 р\nВыход 21.11 14:05\n1 Питание 9 Ещё 0 Выход",
				"2 Визиты\n3 SMS\n4 История\n5 Пополнить\n6 Язык\n7 Доступ\n0 Назад",
			},
		},
		{
			what:   "the whole bar when it fits, as English does in GSM-7",
			screen: Screen{Style: english, Lines: []string{"Masha P. 143.50 RUB", "Entry 08:15"}, Bar: englishBar, Lead: 3},
			top:    true,
			want: []string{
				"Masha P. 143.50 RUB\nEntry 08:15\n" +
					"1 Meals 2 Visits 3 SMS 4 History 5 Top up 6 Language 7 Access 0 Exit",
			},
		},
		{
			what:   "the answer alone for an operator that wants no menu",
			screen: Screen{Style: russian, Lines: []string{"Маша П. 143,50 р", "Вход 08:15"}, Bar: bar, Lead: 3},
			top:    true, alone: true,
			want: []string{"Маша П. 143,50 р\nВход 08:15"},
		},
		{
			what: "children, a line each",
			screen: Screen{Style: russian, Items: []Choice{
				{Key: "1", Label: "Маша П. 143,50 р вход 08:15"}, {Key: "2", Label: "Петя П. 20,00 р выход 14:05"},
			}},
			top:  true,
			want: []string{"1 Маша П. 143,50 р вход 08:15\n2 Петя П. 20,00 р выход 14:05\n0 Выход"},
		},
		{
			what: "children who fill the page, without the key to leave",
			screen: Screen{Style: russian, Items: []Choice{
				{Key: "1", Label: "Маша 143,50 вх 08:15"},
				{Key: "2", Label: "Петя 143,50 вх 08:15"},
				{Key: "3", Label: "Вася 143,50 вх 08:15"},
			}},
			top:  true,
			want: []string{"1 Маша 143,50 вх 08:15\n2 Петя 143,50 вх 08:15\n3 Вася 143,50 вх 08:15"},
		},
		{
			what: "a list with a page of its own for what is too much",
			screen: Screen{Style: russian, Lines: []string{
				"Маша П. визиты", "22.11 08:15-", "21.11 08:10-14:05", "20.11 08:11-14:00", "19.11 08:00-13:50",
			}},
			want: []string{
				"Маша П. визиты\n22.11 08:15-\n21.11 08:10-14:05\n9 Далее 0 Назад",
				"20.11 08:11-14:00\n19.11 08:00-13:50\n0 Назад",
			},
		},
		{
			what: "no keys on the last page of a screen that ends",
			screen: Screen{Style: russian, End: true, Lines: []string{
				"Маша П. визиты", "22.11 08:15-", "21.11 08:10-14:05", "20.11 08:11-14:00", "19.11 08:00-13:50",
			}},
			top: true,
			want: []string{
				"Маша П. визиты\n22.11 08:15-\n21.11 08:10-14:05\n9 Далее",
				"20.11 08:11-14:00\n19.11 08:00-13:50",
			},
		},
		{
			what: "a line longer than a page broken between words, continued on the next",
			screen: Screen{Style: russian, Lines: []string{
				"Сегодня", "Обед: борщ со сметаной, котлета куриная с пюре, салат из свежей капусты, компот, хлеб",
			}},
			want: []string{
				"Сегодня\nОбед: борщ со сметаной, котлета куриная с\n9 Далее 0 Назад",
				"пюре, салат из свежей капусты, компот, хлеб\n0 Назад",
			},
		},
		{
			what:   "in Latin letters for a link without UCS-2, without what has no Latin form",
			screen: Screen{Style: templates.Style{Language: templates.RU, Latin: true}, Lines: []string{"Борщ 😀 №5"}},
			latin:  true,
			want:   []string{"Borshch No5\n0 Nazad"},
		},
		{
			what:   "something, where no letter can be shown: an empty page is illegal",
			screen: Screen{Style: templates.Style{Language: templates.RU, Latin: true}, Lines: []string{"😀"}, End: true},
			latin:  true,
			want:   []string{"-"},
		},
	}
	for _, test := range tests {
		var got []string
		for _, p := range walk(test.screen, test.top, test.alone, test.latin) {
			got = append(got, p.text)
		}
		if strings.Join(got, "\n===\n") != strings.Join(test.want, "\n===\n") {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", test.what, strings.Join(got, "\n===\n"), strings.Join(test.want, "\n===\n"))
		}
	}
}

func TestAHintStandsOnTheSamePage(t *testing.T) {
	t.Parallel()
	screen := Screen{Style: russian, Lines: []string{
		"Маша П. визиты", "22.11 08:15-", "21.11 08:10-14:05", "20.11 08:11-14:00", "19.11 08:00-13:50",
	}}
	l := newLayout(screen, templates.NewUSSDFrame(russian), false, false, false, usual().Limits)
	hinted := l.page(0, "Нет такого пункта")
	if want := "Нет такого пункта\nМаша П. визиты\n22.11 08:15-\n9 Далее 0 Назад"; hinted.text != want {
		t.Errorf("got %q, want %q", hinted.text, want)
	}
	want := "21.11 08:10-14:05\n20.11 08:11-14:00\n19.11 08:00-13:50\n0 Назад"
	if next := l.page(hinted.next, ""); next.text != want || !next.last {
		t.Errorf("after the hint comes %q, want %q", next.text, want)
	}
}

func TestAWordLongerThanAPageIsCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ж😀", 40)
	var got string
	for _, p := range walk(Screen{Style: russian, End: true, Lines: []string{long}}, true, false, false) {
		if gsm.Units(p.text) > 70 || strings.ContainsRune(p.text, utf8.RuneError) {
			t.Errorf("a page of %d: %q", gsm.Units(p.text), p.text)
		}
		got += strings.NewReplacer("\n9 Далее", "", " ", "").Replace(p.text)
	}
	if got != long {
		t.Errorf("the pages together are %q", got)
	}
}

func TestWhatPeopleTypedIsOneLine(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]string{
		"Борщ": "Борщ", "Борщ\n9 Меню": "Борщ 9 Меню", " Сок \t яблочный ": "Сок яблочный", "a\u202Eb\u200Bc": "abc",
		"a\x00b\x7f": "ab", "\xff!": "!", "два  пробела": "два пробела", "": "",
	} {
		if got := oneLine(typed, false); got != want {
			t.Errorf("%q becomes %q, want %q", typed, got, want)
		}
	}
}

// Every page of every screen holds what the phone can show, loses no word and tears none.
func TestPagesKeepEveryWordWithinTheRoom(t *testing.T) {
	t.Parallel()
	word := rapid.OneOf(
		rapid.StringMatching(`[a-z]{1,12}`), rapid.StringMatching(`[а-я]{1,12}`), rapid.StringMatching(`[0-9€\[]{1,8}`),
		rapid.SampledFrom([]string{"😀", "ж😀ж", "143,50", "08:15-13:40"}),
	)
	line := rapid.Map(rapid.SliceOfN(word, 1, 30), func(words []string) string { return strings.Join(words, " ") })
	choice := func(n int) Choice { return Choice{Key: string(rune('1' + n)), Label: "Пункт"} }
	rapid.Check(t, func(t *rapid.T) {
		screen := Screen{
			Style: rapid.SampledFrom([]templates.Style{russian, english, {Language: templates.RU, Latin: true}}).Draw(t, "style"),
			Lines: rapid.SliceOfN(line, 1, 8).Draw(t, "lines"),
			End:   rapid.Bool().Draw(t, "end"),
		}
		for n := range rapid.IntRange(0, 7).Draw(t, "bar") {
			screen.Bar = append(screen.Bar, choice(n))
		}
		screen.Lead = rapid.IntRange(0, len(screen.Bar)).Draw(t, "lead")
		top := rapid.Bool().Draw(t, "top")
		pages := walk(screen, top, false, false)

		var all []string
		for _, p := range pages {
			size, room := gsm.Units(p.text), 70
			if p.gsm7 {
				var ok bool
				if size, ok = gsm.Septets(p.text); !ok {
					t.Fatalf("page %q is not GSM-7", p.text)
				}
				room = 160
			}
			if size > room || p.text == "" {
				t.Fatalf("page %q has %d of %d", p.text, size, room)
			}
			if !utf8.ValidString(p.text) || strings.ContainsRune(p.text, utf8.RuneError) {
				t.Fatalf("page %q is torn", p.text)
			}
			for _, unit := range utf16.Encode([]rune(p.text)) {
				if unit == 0xFFFD {
					t.Fatalf("page %q has half a surrogate pair", p.text)
				}
			}
			all = append(all, strings.Fields(p.text)...)
		}
		for _, line := range screen.Lines {
			for _, w := range strings.Fields(line) {
				at := -1
				for i, got := range all {
					if got == w {
						at = i
						break
					}
				}
				if at < 0 {
					t.Fatalf("the word %q is lost in %q", w, all)
				}
				all = all[at+1:]
			}
		}
	})
}
