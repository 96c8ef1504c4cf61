"""The small language that sentence forms are written in, and the forms that state one fact each.

A form is a string with slots and alternatives: ``<S>`` is the entity, ``<V>`` the attribute (``<aV>`` with its indefinite
article, ``<Vs>`` in the plural, ``<tV>`` with "the" where English wants one), ``<N>`` a small number, and ``[a|b|c]`` a
choice. Forms start in lower case and end without a full stop, so that they can be embedded in longer
sentences. Nearly all name the entity, because a small model learns a fact from the two names standing close
together.
"""

# ruff: noqa: E501, SIM905 (one form a line)
from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

Draw = Callable[[], float]
Form = tuple[str | tuple[str, ...], ...]

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_DEFINITE_HEADS = frozenset(
    "receptor channel cotransporter transporter subunit protein proteasome kinase antigen ligand".split()
)


def compile_form(text: str) -> Form:
    """Splits a form into literal strings and tuples of alternatives."""
    parts: list[str | tuple[str, ...]] = []
    for number, piece in enumerate(_CHOICE.split(text)):
        if number % 2:
            parts.append(tuple(piece.split("|")))
        elif piece:
            parts.append(piece)
    return tuple(parts)


def compile_forms(block: str) -> tuple[Form, ...]:
    """Compiles a block of forms, one a line."""
    return tuple(compile_form(line) for line in block.strip().splitlines())


_SPOKEN_VOWEL = ("ACE ", "SGLT2 ", "X-linked ")
_SPOKEN_CONSONANT = ("uricosuric",)


def article(noun: str) -> str:
    """``noun`` with "a" or "an" by its sound, as far as the tables need it."""
    vowel = noun[0].lower() in "aeiou" and not noun.startswith(_SPOKEN_CONSONANT)
    return f"{'an' if vowel or noun.startswith(_SPOKEN_VOWEL) else 'a'} {noun}"


def plural(noun: str) -> str:
    """The regular plural of a class name such as "antibody" or "statin"."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith("bacterium"):
        return noun[:-2] + "a"
    irregular = {"coccus": "cocci", "fungus": "fungi", "virus": "viruses"}
    for one, many in irregular.items():
        if noun.endswith(one):
            return noun[: -len(one)] + many
    return noun + "s"


def definite(noun: str) -> str:
    """``noun`` with "the" where it is a structure with a common name, not an enzyme used as a proper name."""
    return f"the {noun}" if noun.rsplit(" ", 1)[-1] in _DEFINITE_HEADS else noun


_PREPOSITION = re.compile(r" (?:of|on|in|into|with|without|before) ")
_SINGULAR = ("ss", "us", "is", "diabetes", "shingles")
_AGREEMENT = {
    "is": "are",
    "was": "were",
    "has": "have",
    "suggests": "suggest",
    "points": "point",
    "leads": "lead",
    "helps": "help",
    "gives": "give",
    "develops": "develop",
    "occurs": "occur",
    "appears": "appear",
    "explains": "explain",
}


def is_plural(noun: str) -> bool:
    """Whether an attribute such as "ash-leaf spots" or "attacks of abdominal pain" takes a verb in the plural."""
    head = _PREPOSITION.split(noun, maxsplit=1)[0]
    return head.endswith("feet") or (head.endswith("s") and not head.endswith(_SINGULAR))


@cache
def _verb_after(noun: str) -> re.Pattern[str] | None:
    """Finds the verb whose subject is ``noun``; None for singular nouns, whose verbs are right as written."""
    if not is_plural(noun):
        return None
    return re.compile(rf"(?<={re.escape(noun)} )(that )?({'|'.join([*_AGREEMENT, 'begins', 'starts'])})\b")


def _agree(match: re.Match[str]) -> str:
    return (match[1] or "") + _AGREEMENT.get(match[2], match[2].removesuffix("s"))


def fill(form: Form, draw: Draw, subject: str = "", value: str = "") -> str:
    """Writes a form out: every choice made by ``draw`` (uniform in [0, 1)), every slot replaced."""
    text = "".join([part if type(part) is str else part[int(draw() * len(part))] for part in form])
    if "<" in text:
        text = text.replace("<S>", subject).replace("<V>", value)
        if "<" in text:
            if "<aV>" in text:
                text = text.replace("<aV>", article(value))
            if "<Vs>" in text:
                text = text.replace("<Vs>", plural(value))
            if "<tV>" in text:
                text = text.replace("<tV>", definite(value))
            while "<N>" in text:
                text = text.replace("<N>", str(2 + int(draw() * 95)), 1)
        verb = _verb_after(value) if value else None
        if verb:
            text = verb.sub(_agree, text)
    return text


def sentence(clause: str, end: str = ".") -> str:
    """``clause`` with a capital first letter and a full stop."""
    return clause[0].upper() + clause[1:] + end


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


STATEMENTS: dict[str, tuple[Form, ...]] = {relation: compile_forms(block) for relation, block in _STATEMENTS.items()}
"""Forms that state one fact, by relation."""
