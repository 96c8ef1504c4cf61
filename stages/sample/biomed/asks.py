"""Forms that ask for a fact in the question-and-answer documents, and the forms in which notes tell one.

``FORWARD`` asks for the attribute of an entity, ``BACKWARD`` for an entity with the attribute; the latter ask
for one example, since several entities may share an attribute. The examination has wordings of its own, in
``questions``.
"""

from __future__ import annotations

from stages.sample.forms import compile_forms

OPENERS = compile_forms("""
[I am|we are] [studying|reviewing|revising] this week and [need|want] to [know|ask]:
[my|our] [doctor|pharmacist|neighbor|daughter] [raised|mentioned] this and I [wonder|would like to know]:
[a reader|a caller|a member] from [the north|the coast|a small town|another clinic] [asks|writes]:
[after|before] my [visit|appointment] I [need|want] [help|an answer] with one [thing|point]:
[quick|short|simple] question number <N> [today|this week]:
[please|could you] [help|tell] me:
[for|in] [an essay|a talk|a quiz] of <N> [lines|minutes],""")
"""Put before a question in about half of the cases."""

FORWARD = {
    "class": compile_forms("""
what [class|type|kind] of [drug|medicine] is <S>
to which [class|family|group] does <S> belong
how is <S> [classified|grouped|categorized]
what is the [drug|pharmacologic|medicine] class of <S>
under which [heading|drug group] would I find <S>
<S> is a member of which [class|group]
what do [doctors|pharmacists] call the class of <S>
what sort of medicine is <S>"""),
    "indication": compile_forms("""
what is <S> [used|given|prescribed] for
which [condition|problem|illness] is treated with <S>
why would [a doctor|someone|my clinic] prescribe <S>
what is the [main|usual|typical] [use|indication] of <S>
for [what|which] [condition|diagnosis] do people take <S>
what does <S> [treat|help with]
in which [condition|situation] is <S> [helpful|given]
what is the [purpose|reason] for taking <S>"""),
    "adverse_effect": compile_forms("""
what [side effect|adverse effect|harm] is [known|typical|characteristic] for <S>
which [side effect|complication] should [I|people|patients] [watch for|know about] with <S>
what [problem|trouble] can <S> cause
what should [worry|concern] me [when|while] taking <S>
what [adverse reaction|toxicity] is <S> known for
what can go wrong with <S>
which [warning|risk] comes with <S>
what is the classic [side effect|toxicity] of <S>"""),
    "target": compile_forms("""
what [does|will] <S> act on
what is the [molecular|main] target of <S>
[where|at which site] in the [cell|body] does <S> act
how does <S> work, and on [what|which] target
which [molecule|structure] does <S> [bind|reach|affect]
through [what|which target] does <S> work
what is the mechanism target of <S>
on which [target|site] does <S> [act|work]"""),
    "gene": compile_forms("""
which gene [causes|is mutated in|is behind] <S>
what gene is [affected|involved|altered] in <S>
[changes|mutations] in which gene lead to <S>
what is the gene for <S>
which gene [should|would] a laboratory [test|read] in <S>
what is the genetic [cause|basis] of <S>
which gene is [responsible for|linked to] <S>
in <S>, which gene is [defective|faulty]"""),
    "inheritance": compile_forms("""
how is <S> inherited
what is the [inheritance|mode of inheritance] of <S>
how does <S> [pass|run] [through|in] families
what [pattern|type] of inheritance does <S> have
which inheritance [pattern|mode] [fits|describes] <S>
what kind of [trait|inheritance] is <S>
how do [parents|families] pass on <S>
what does the family tree show in <S>"""),
    "sign": compile_forms("""
what [sign|finding|feature] is [typical|characteristic] of <S>
how does <S> [show itself|present]
which [clue|sign|finding] [points|leads] to <S>
what [does|would] a doctor [see|find] in <S>
what is the [cardinal|classic|main] sign of <S>
which [feature|symptom] [marks|reveals] <S>
what do people with <S> [have|develop]
by what [sign|finding] is <S> recognized"""),
    "test": compile_forms("""
which test is used for <S>
how is <S> [diagnosed|confirmed|detected]
what test [confirms|supports|detects] <S>
what [test|study] will [I|we|my son] need for <S>
which [investigation|study|test] is [ordered|done] in suspected <S>
what is the [diagnostic|best|usual] test for <S>
how do doctors test for <S>
what [examination|test] [shows|proves] <S>"""),
    "treatment": compile_forms("""
how is <S> treated
what is the treatment [of|for] <S>
which [treatment|therapy] is [given|used|offered] for <S>
what can be done for <S>
what [helps|is given to] people with <S>
which therapy do [doctors|specialists] [choose|use] in <S>
what is the [usual|main] [therapy|treatment] for <S>
with what is <S> [managed|treated]"""),
    "kind": compile_forms("""
what [kind|type|sort] of organism is <S>
what is <S>, [biologically|in the laboratory]
how is <S> classified
to which group of [organisms|pathogens] does <S> belong
what type of [pathogen|germ] is <S>
how would a [laboratory|microbiologist] describe <S>
under [what|which] [type|heading] is <S> listed
what sort of germ is <S>"""),
    "disease": compile_forms("""
what [disease|illness] does <S> cause
which [disease|illness|infection] is [caused by|linked to|due to] <S>
what [happens|develops] after infection with <S>
what is the disease [from|of] <S>
<S> is the cause of [which|what] [disease|illness]
what can <S> give [people|me|travelers]
which diagnosis [goes with|follows] <S>
what illness comes from <S>"""),
    "transmission": compile_forms("""
how is <S> [spread|transmitted|acquired]
how do people [catch|get|pick up] <S>
what [exposure|contact] [transmits|spreads] <S>
what is the [route|source|mode] of [infection|transmission] of <S>
where does <S> come from
through what do people get <S>
which exposure [leads|is linked] to <S>
what should [travelers|people] avoid to stay free of <S>"""),
}
"""Questions for the attribute, by relation."""

BACKWARD = {
    "class": compile_forms("""
which [medicine|drug], for example, is <aV>
can you name <aV>"""),
    "indication": compile_forms("""
can you name a [medicine|drug] for <V>
which [medicine|drug] may be [given|used] for <V>"""),
    "adverse_effect": compile_forms("""
can you name a [medicine|drug] that may cause <V>
which [medicine|drug] is known for <V>"""),
    "target": compile_forms("""
can you name a [medicine|drug] that acts on <tV>
which [medicine|drug] has <tV> as its target"""),
    "gene": compile_forms("""
[changes|mutations] in <V> cause which [disease|condition]
which [disease|disorder] goes with the <V> gene"""),
    "sign": compile_forms("""
which [disease|disorder] [shows|presents with] <V>
<V> [points|leads] to which [diagnosis|disorder]"""),
    "test": compile_forms("""
for which [disease|disorder] would <V> be [used|ordered]
<V> helps to detect which [disease|disorder]"""),
    "treatment": compile_forms("""
which [disease|disorder] may be treated with <V>
for which [disease|disorder] can <V> be given"""),
    "kind": compile_forms("""
which [pathogen|organism], for example, is <aV>
can you name <aV> that causes illness"""),
    "disease": compile_forms("""
which [organism|germ|pathogen] causes <V>
what [organism|germ|pathogen] is behind <V>"""),
    "transmission": compile_forms("""
which [organism|germ|pathogen] spreads [through|by] <V>
<V> can transmit which [organism|pathogen]"""),
}
"""Questions for an entity that has the attribute, by relation; for inheritance nearly any entity would do."""

CASES = {
    "class": compile_forms("""
<S>, <aV>, was on the [list of medicines|medicine chart] of <P>
[the record|the chart] of <P> named <S>, <aV>
the [team|resident] [chose|gave] <aV>, [namely|in this case] <S>
treatment with <aV> was considered for <P>, and <S> was [chosen|named]"""),
    "indication": compile_forms("""
<P> had been [given|prescribed] <S> for <V>
<S> was [started|begun] for <V> [in|during] [spring|summer|autumn|winter]
because of <V>, <P> [received|was started on] <S>
<V> had led to a prescription of <S> for <P>"""),
    "adverse_effect": compile_forms("""
<P> was warned that <S> can cause <V>
the team thought of <V> because <P> [took|was taking] <S>
[some days|about <N> days] after starting <S>, <P> [asked about|was checked for] <V>
<V> was [listed|noted] as a known [harm|effect] of <S>"""),
    "target": compile_forms("""
the [resident|student] recalled that <S> acts on <tV>
[at the bedside|on rounds] the team discussed how <S> acts on <tV>
<P> asked how <S> works, and the answer was its action on <tV>
<tV>, the target of <S>, was [named|drawn] on the board"""),
    "gene": compile_forms("""
the laboratory read the <V> gene because <S> was suspected
a [report|letter] on <P> tied <S> to a [variant|mutation] in <V>
a [variant|mutation] in <V> was [found|reported], and <S> was the diagnosis
<P> [asked|learned] about <V>, the gene of <S>"""),
    "inheritance": compile_forms("""
the family of <P> was told that <S> is <V>
a [drawn|written] pedigree showed how <S> follows <aV> pattern
counseling explained the <V> inheritance of <S> to <P>
since <S> is <V>, [relatives|cousins] of <P> were [invited|called]"""),
    "sign": compile_forms("""
<P> had <V>, and the team thought of <S>
the examination of <P> showed <V>, [which suggested|a finding of] <S>
<V> was the [finding|clue] that led the doctors of <P> to <S>
a [resident|student] noticed <V> and [proposed|raised] <S>"""),
    "test": compile_forms("""
<V> was [ordered|arranged] for <P> to look for <S>
the result of <V> [supported|was in keeping with] <S>
because <S> was possible, <P> [underwent|was sent for] <V>
<S> was [looked for|assessed] in <P> by <V>"""),
    "treatment": compile_forms("""
<P> was offered <V> for <S>
after the diagnosis of <S>, <V> was [planned|begun]
with <S> confirmed, the plan for <P> included <V>
<V> was [chosen|discussed] as the treatment of <S>"""),
    "kind": compile_forms("""
the laboratory [reported|found] <S>, <aV>, in the [first|second] sample
the culture report of <P> described <S> as <aV>
<aV> was [seen|suspected], and <S> was [named|confirmed]
the [student|resident] was asked what <S> is and answered that it is <aV>"""),
    "disease": compile_forms("""
<P> was found to have <V>, and <S> was [detected|named]
<S> was identified as the cause of <V> in <P>
a diagnosis of <V> with <S> was [recorded|made]
the team treated <P> for <V> due to <S>"""),
    "transmission": compile_forms("""
<P> recalled <V>, which fits with <S>
a history of <V> made the team think of <S>
asked about exposure, <P> described <V>, a route for <S>
<P> may have acquired <S> through <V>"""),
}
"""How notes tell a fact; ``<P>`` is the fictitious patient."""
