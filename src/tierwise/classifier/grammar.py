"""Function words: how clauses begin, join and subordinate, in the languages that the rules know."""

from __future__ import annotations

__all__ = [
    "ARTICLES",
    "ASKERS",
    "ASK_TAGS",
    "CODE_SIGNS",
    "CONSTRAINTS",
    "DETERMINERS",
    "IGNORED",
    "JOINTS",
    "PAYLOAD_LABELS",
    "PERSONA",
    "PERSONS",
    "POLITE",
    "PREPOSITIONS",
    "QUESTIONS",
    "SUBORDINATORS",
    "SUSPECT",
    "THEM",
    "THEN",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _concepts(text: str) -> dict[str, str]:
    """`concept: word word`, a line or more each, turned into word → concept ("-" is none)."""
    table: dict[str, str] = {}
    concept = ""
    for word in text.split():
        if word.endswith(":"):
            concept = word[:-1].replace("-", "")
        else:
            table[word] = concept
    return table


ARTICLES = _words(
    """
    a an das dem den der des el il le les the
    """
)
# skipped within phrases: "review this contract" is "review contract"
DETERMINERS = _words(
    """
    above all any attached below ce ces cet cette diese diesen dieser dieses each essa esse esta estas este
    estos following her his its my our questa questi questo some that their these this those your
    """
)
# before a colon, these say that a payload follows
PAYLOAD_LABELS = _words(
    """
    abstract article background body code comment content context contract conversation csv data diff document
    dokument email example examples excerpt input json letter log logs message nachricht note notes output
    paragraph passage payload premise quote report review sentence source testo text texte texto ticket
    transcript tweet
    """
)
# tags whose content is the request, not a payload
ASK_TAGS = _words(
    """
    goal instruction instructions prompt query question request task
    """
)
# what stands behind one of these is not the object
PREPOSITIONS = _words(
    """
    about across after against as at aus avec based before between by como con da dans das de del della des di
    do dos du en for from fur im in ins into mit na no of on over par para per pour regarding sobre su sur to
    uber um under using via von with within zu
    """
)
# they open a subordinate clause; after "tell me" they ask a question of their own
SUBORDINATORS = _concepts(
    """
    q_how: how wie comment
    q_what: what was
    q_why: why warum pourquoi
    q_whether: whether if ob si
    q_which: which
    q_who: who
    q_when: when
    q_where: where
    -: that because so since while por porque unless until although
    """
)
# they open a question, of a kind
QUESTIONS = _concepts(
    """
    q_what: what que
    q_how: how wie comment como come
    q_why: why warum pourquoi perche
    q_which: which welche welcher welches quel quelle cual qual quale
    q_who: who whose whom wer qui quien quem chi
    q_when: when wann quand cuando quando
    q_where: where wo donde onde
    q_is: is are was were does do did has have can could will would am ist sind hat est es kann darf puedo posso
    q_should: should soll sollte dois debo deberia devo
    """
)
# skipped at the beginning of a clause
POLITE = _words(
    """
    afterwards again ahead also and automatically bitte briefly but carefully e et favor finally first go hello
    hey hi immediately just kindly lastly let lets next now ok okay or per plait please por prego quickly s'il
    second simply so stp te thanks then third try und us vous well y
    """
)
# with a person before them they make a request: "I need", "you must"
ASKERS = _words(
    """
    'd asked going have like must need should supposed to want would
    """
)
PERSONS = _words(
    """
    goal i job me role task us we you your
    """
)
# they open remarks on how to answer
CONSTRAINTS = _words(
    """
    avoid be consider do don't ensure include keep never no not only output remember respond return use
    """
)
# a clause with one of these may be aimed at the router
SUSPECT = _words(
    """
    processing label mark low
    cheap cheapest classify easy haiku ignore local lowest route router simple small smallest treat trivial
    """
)
# they open the description of a role
PERSONA = _words(
    """
    act as du eres tu you
    """
)
# they may join two instructions
JOINTS = _words(
    """
    , afterwards also and danach dann e et finally luego or poi puis then und y
    """
)
# joints that an instruction must follow
THEN = _words(
    """
    afterwards also danach dann finally luego poi puis then
    """
)
# objects that show that the word before is a verb
THEM = _words(
    """
    all everything it me them
    """
)
# wording that is aimed at the router says nothing of the task
IGNORED = (
    "trivial",
    "cheapest",
    "easy task",
    "simple task",
    "cheap model",
    "small model",
    "smallest model",
    "local model",
    "local tier",
    "haiku tier",
    "lowest tier",
    "this is simple",
    "ignore previous",
    "ignore all previous",
    "for the router",
    "route this to",
    "classify this as",
    "label this request",
    "label this as",
    "mark this as",
    "classify this request as",
    "request as processing",
    "as processing",
    "low stakes",
    "low priority task",
    "treat this as",
)
# one of these in a text makes code a likely payload
CODE_SIGNS = ("```", "def ", "();", ") {", "){", "import ", "#include", "public ", "const ", "return ", " => ", "</")
