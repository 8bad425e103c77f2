package meal

import (
	"slices"
	"strings"

	"zvonok/ledger"
)

// cityMeals are the meals of a day that the city pays, in the order of the day,
// by the names they have in the books.
var cityMeals = []string{"breakfast", "second_breakfast", "lunch", "snack", "dinner", "second_dinner"}

// mealNames are what tills, menus and parents call them beside that, in lower
// case and with plain spaces.
var mealNames = map[string]string{
	"завтрак": "breakfast", "zavtrak": "breakfast",
	"second breakfast": "second_breakfast", "второй завтрак": "second_breakfast", "2 завтрак": "second_breakfast",
	"2 й завтрак": "second_breakfast", "vtoroy zavtrak": "second_breakfast",
	"обед": "lunch", "obed": "lunch",
	"полдник": "snack", "poldnik": "snack", "afternoon snack": "snack",
	"ужин": "dinner", "uzhin": "dinner", "supper": "dinner",
	"second dinner": "second_dinner", "second supper": "second_dinner", "второй ужин": "second_dinner",
	"2 ужин": "second_dinner", "2 й ужин": "second_dinner", "vtoroy uzhin": "second_dinner",
}

// mealName returns the one name that a meal of the day has in the books, whatever
// a till, a menu or a parent calls it: two tills that name one meal differently
// serve the same one. A meal that is none of the day's keeps its own name.
func mealName(word string) string {
	word = fold(word)
	plain := strings.Join(strings.Fields(strings.NewReplacer("_", " ", "-", " ").Replace(word)), " ")
	if name, known := mealNames[plain]; known {
		return name
	}
	if slices.Contains(cityMeals, plain) {
		return plain
	}
	return word
}

// Entitled returns the meals of a day that the city pays for someone with a
// benefit. What is not a meal of the day it pays for nobody: a till could invent
// any number of them.
func Entitled(benefit ledger.Benefit) []string {
	switch benefit {
	case ledger.FullBenefit:
		return slices.Clone(cityMeals)
	case ledger.BreakfastBenefit:
		return []string{"breakfast"}
	case ledger.LunchBenefit:
		return []string{"lunch"}
	}
	return nil
}

func entitled(benefit ledger.Benefit, meal string) bool {
	return slices.Contains(Entitled(benefit), meal)
}

// notEntitled refuses a meal that the city does not pay for somebody.
func notEntitled(person ledger.PersonID, benefit ledger.Benefit, meal string) Verdict {
	if benefit == ledger.FullBenefit {
		return refuse(CodeNotEntitled, "the city pays the meals of a day, %s; %q is none of them", strings.Join(cityMeals, ", "), meal)
	}
	return refuse(CodeNotEntitled, "the city does not pay %s for person %d", meal, person)
}
