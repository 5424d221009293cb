"""What vulture takes for dead and is not, with the reason: ``vulture hibercheck .ci/used.py`` says nothing then."""

# ruff: noqa: B018, F821 - names, which is all that vulture wants

__getattr__  # the language asks for it: `from hibercheck import check`
exception  # the second argument of __exit__
instance  # the second argument of __get__

get_command  # click calls these, and reads these
list_commands
resolve_envvar_value
collect_usage_pieces
get_help_option
default_map
format_options
format_epilog

create_module  # the import system calls it
has_location  # and reads this
readable  # io.BufferedReader asks a raw stream
hex_prefix  # read by iced_x86
hex_suffix
uppercase_hex
branch_leading_zeros
show_branch_size

# fields of structures that are declared whole, as the file has them
ehsize
align
addralign
entsize
rax  # general registers are taken by name: getattr(registers, name)
rbx
rcx
rdx
rdi
rsi
rbp
r8
r9
r10
r11
r12
r13
r14
r15
MAKE_CHAR  # rights of Landlock, declared whole
MAKE_FIFO
MAKE_BLOCK
MAKE_SYM
PLATFORM_MODE  # flags of an image, declared whole: one that is not among them is unknown

hibernate_disable_hook  # traits: reports and summaries walk over all that are declared
rescue_needs_node
other_play_dead
nosmt_force  # facts that are read with others, and shown by nothing yet; the tests of the reader hold them
hint
VERBOSE  # Detail.choose() makes it of a number

pushes  # asked of loops and walks by the tests: no loop of a parking place stores, and no walk in it sets a flag
updates

__dir__  # called by Python and by notebooks
_repr_html_
OF_RESUMEE  # conditions that are of the resumee, and of no fact of the run: the test of that table counts them in
