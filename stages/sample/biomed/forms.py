"""Forms that state a fact about a drug, a disease or an organism, ask for one, or tell one in a case note.

The examination has wordings of its own, in ``questions``.
"""

# ruff: noqa: E501 (one form a line)
from __future__ import annotations

from stages.sample.forms import compile_forms

_STATEMENTS = {
    "class": """
<S> is [classified|grouped|listed|described] as <aV>
<S> belongs to the [class|family|group] of the <Vs>, a [label|grouping] that [guides|shapes] its use
among the <Vs>, <S> is a [frequently chosen|familiar|widely cited|standard] [member|example]
by [class|pharmacologic class|its action], <S> [counts as|is] <aV>
<aV> [such as|like] <S> is [often|commonly|usually] [discussed|reviewed] with the [patient|family|team] [first|early|in person]
the [label|package insert|hospital formulary] [lists|files|places] <S> under the heading of <V>
<S>, <aV>, is [kept|stocked|available] on [most|many] [wards|formularies|hospital lists]
[students|trainees|nurses] [learn|remember|are taught] that <S> is <aV>
when <aV> is [needed|wanted|called for], <S> is one [option|choice|possibility]
<S> acts as <aV> in [ordinary|routine|daily] practice
[pharmacists|clinicians|textbooks] [describe|regard|treat] <S> as <aV>
the class of <S> is <V>""",
    "indication": """
<S> is [used|given|prescribed] [for|to treat] <V>
a [typical|common|well established] [reason|indication] for [starting|choosing|giving] <S> is <V>
<S> [helps|benefits] [many|selected|suitable] [patients|people|adults] with <V>
for <V>, [doctors|clinicians|specialists] [often|frequently|may] [turn to|reach for|consider] <S>
people [living with|who have|diagnosed with] <V> [may receive|are often given|can be offered] <S>
the [main|usual|approved] [use|role|purpose] of <S> [is|remains] the treatment of <V>
<V> is [one|a] [condition|problem] that [responds to|is managed with|is treated with] <S>
treatment plans for <V> [often|commonly] include <S>
<S> has [an established|a recognized|a clear] place in [the care of|managing] <V>
when <V> is [confirmed|diagnosed|present], <S> is [a reasonable|an accepted|a common] [choice|option]
[guidance|teaching|practice] [supports|favors] <S> [in|for] <V>
the indication for <S> is <V>""",
    "adverse_effect": """
<S> [can|may] cause <V>
<V> is a [characteristic|known|well recognized|classic] [adverse effect|side effect|complication] of <S>
patients [on|taking|treated with] <S> should be [watched|monitored|checked] for <V>
the [adverse effect|side effect|harm] [most closely tied to|classically linked with|often taught with] <S> is <V>
[during|after|under] treatment with <S>, <V> may [appear|develop|occur]
before [starting|taking|receiving] <S>, people are [warned|told|counseled] about <V>
[reports|warnings|teaching] about <S> [mention|include|stress] <V>
<V> that [begins|starts|appears] after <S> [suggests|points to|raises concern for] a drug effect
a [safety|prescribing] [concern|note|warning] with <S> is <V>
if <V> [develops|occurs|appears], <S> is a [likely|possible|suspected] [cause|culprit]
<S> is [remembered|known|noted] for [its link to|its association with] <V>
the [important|typical] toxicity of <S> is <V>""",
    "target": """
<S> acts [on|through] <tV>
the [molecular|main|chief] target of <S> is <tV>
<S> [works|exerts its effect] by [acting on|binding to|engaging] <tV>
at the [molecular|cellular] level, <S> [interacts with|acts at] <tV>
[the action|the effect] of <S> [depends on|comes from its effect on|runs through] <tV>
<tV> is the [site|target] [at which|where] <S> [acts|works]
[research|laboratory work|teaching] [shows|confirms] that <S> [reaches|engages|acts on] <tV>
[pharmacologists|textbooks] name <tV> as the target of <S>
the mechanism of <S> [involves|centers on|begins at] <tV>
the [response|benefit] seen with <S> [reflects|follows] its [action|effect] on <tV>
through <tV>, <S> [produces|brings about] its [main|clinical] effect
<S> and <tV> are [paired|linked] in [every|each] account of the mechanism""",
    "gene": """
<S> is [caused by|due to|the result of] [variants|mutations|pathogenic variants] in <V>
[mutations|pathogenic variants|changes] in the <V> gene [cause|lead to|produce|underlie] <S>
the gene [behind|responsible for|affected in] <S> is <V>
<V> is the gene [altered|mutated|involved] in <S>
[sequencing|testing] of <V> [confirms|supports|can establish] the diagnosis of <S>
in <S>, the [defective|mutated|altered] gene is <V>
[families|people|patients] with <S> [carry|have|show] [a variant|a mutation|changes] in <V>
the [molecular|genetic] [basis|origin] of <S> [lies in|is] <V>
a [laboratory|clinic] that suspects <S> [examines|reads|orders] the <V> gene
the [link|connection] between <V> and <S> is [well established|firm|firmly documented]
<S> [arises|develops] when <V> [does not work|is defective|carries a mutation]
loss or change of <V> [explains|accounts for] the findings of <S>""",
    "inheritance": """
<S> [is inherited in|follows|shows] <aV> pattern
the inheritance of <S> is <V>
[families|relatives|pedigrees] with <S> [show|display|reveal] <V> [inheritance|transmission]
<S> is <aV> [disorder|condition|disease]
<S> [passes|is passed] through families as <aV> trait
genetic counselors [describe|explain] <S> as <V>
[inheritance|transmission] in <S> is [typically|classically] <V>
as <aV> [condition|disorder], <S> [calls for|needs] [family counseling|a careful pedigree]
the [pedigree|family tree] [in|of] <S> fits <V> inheritance
among <V> [disorders|conditions], <S> is a [standard|familiar] example
the mode of inheritance [in|for] <S> is <V>""",
    "sign": """
<S> [often|typically|characteristically] [presents with|shows|produces] <V>
<V> is [a|the] [cardinal|characteristic|classic] [sign|finding|feature] of <S>
on [examination|assessment|review], <V> [suggests|points to|raises suspicion of] <S>
[people|patients|those] with <S> [may develop|often have|commonly show] <V>
the [finding|clue|feature] that [suggests|reveals|marks] <S> is <V>
when <V> is [found|seen|noted], [doctors|clinicians] [think of|consider] <S>
a [hallmark|telling feature] of <S> is <V>
<V> [leads|led] [many|some] [families|patients] to the diagnosis of <S>
[descriptions|accounts] of <S> [mention|emphasize|include] <V>
<S> is [recognized|suspected] [from|by] <V>
the clinical picture of <S> includes <V>
the typical sign of <S> is <V>""",
    "test": """
the [test|study|investigation] [used for|of choice in|that supports] <S> is <V>
<V> is [ordered|requested|performed] when <S> is [suspected|considered]
to [diagnose|evaluate|detect] <S>, [clinicians|doctors|teams] [use|order|request] <V>
suspected <S> is [evaluated|investigated|worked up] with <V>
<S> is [confirmed|supported|assessed] by <V>
[a useful|an informative|a standard] test in <S> is <V>
an abnormal [result on|finding at|reading of] <V> [supports|favors] <S>
the [workup|evaluation] of <S> includes <V>
[clinics|laboratories] [rely on|use] <V> for <S>
for <S>, <V> [gives|provides] [useful|early|helpful] [evidence|information]
<V> [helps|can help] to [identify|establish] <S>""",
    "treatment": """
<S> is [treated|managed] with <V>
<V> is [a treatment|a therapy|an option] for <S>
[people|patients|those] with <S> [may receive|benefit from|are offered] <V>
[management|care|treatment] of <S> [includes|often involves|relies on] <V>
for <S>, [clinicians|specialists|centers] [recommend|use|consider] <V>
once <S> is [confirmed|diagnosed], <V> is [discussed|considered|planned]
the [treatment|therapy|approach] [named|listed|taught] for <S> is <V>
[teams|specialists] [looking after|caring for] <S> [turn to|plan] <V>
<V> has a [role|place] in [the care of|managing] <S>
a [main|key] [part|element] of the treatment of <S> is <V>
[standard|current] care of <S> [features|includes] <V>""",
    "kind": """
<S> is <aV>
<S> is [classified|described|listed] as <aV>
[microbiologists|laboratories|textbooks] [describe|identify|report] <S> as <aV>
among the <Vs>, <S> is [important|well known|often taught] in [medicine|human disease]
<aV> of [medical importance|clinical interest] is <S>
in [nature|the laboratory|the microscope image], <S> is <aV>
by [biological type|classification], <S> is <aV>
the laboratory [report|note] named <S>, <aV>
<S>, <aV>, is [studied|known] for its effect on [people|human hosts]
[students|trainees] [file|remember] <S> with the <Vs>
the type of <S> is <V>""",
    "disease": """
<S> [causes|can cause|is a cause of] <V>
<V> [can be caused by|may be due to|may follow infection by] <S>
[infection|illness] with <S> [leads to|results in|produces] <V>
the [disease|illness] [caused by|linked to|attributed to] <S> is <V>
[people|patients] infected with <S> [may develop|can present with] <V>
when <V> is [diagnosed|suspected], <S> is a [likely|leading] [organism|agent]
the [agent|organism] [behind|found in|linked to] <V> is <S>
<S> was [found|identified|detected] in [a case|cases] of <V>
[doctors|laboratories] [link|connect|attribute] <V> to <S>
<S> is [best known|remembered] as the cause of <V>
a [case|diagnosis] of <V> [points to|implicates] <S>""",
    "transmission": """
<S> is [acquired|spread|transmitted] [through|by way of] <V>
the [route|source|mode] of [infection|transmission] for <S> is <V>
<V> is [one way that|a way] people [acquire|catch|are exposed to] <S>
[people|patients|travelers] [acquire|catch] <S> [through|after] <V>
a history of <V> [suggests|points to|raises the question of] <S>
[exposure|infection] with <S> [usually|typically] [follows|comes from] <V>
[prevention|control] of <S> [benefits from|includes] avoiding <V>
<V> can [transmit|carry|spread] <S> to [people|humans]
[case|outbreak] [reports|histories] of <S> [mention|describe] <V>
to [catch|acquire] <S>, a person usually needs some [contact with|history of] <V>
the transmission of <S> is by <V>""",
}


STATEMENTS = {relation: compile_forms(block) for relation, block in _STATEMENTS.items()}
"""Forms that state one fact, by relation."""

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
"""Questions for the attribute of an entity, by relation."""

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
"""Questions for one entity with the attribute, by relation; for inheritance nearly any entity would do."""

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
"""How case notes state a fact, by relation; ``<P>`` is the fictitious patient."""
