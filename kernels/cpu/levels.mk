# For Makefiles that compile the CPU kernels. Include it after CC is set. It sets
#   PS3C_LEVELS          names of the levels that $(CC) compiles for, from levels.def; without naive
#   PS3C_FLAGS_<level>   compiler flags of each
#   PS3C_PER_LEVEL       names (without .c) of the sources to compile once per level, with -DPS3C_LEVEL=<level>:
#                        those that name their functions by PS3C_CPU(name), as in setup.py
#   PS3C_ONCE            names of the other sources, compiled once, without flags of a level
PS3C_CPU_FOLDER := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))

# One word per level: name|flag|flag...
PS3C_LEVEL_WORDS := $(shell awk -F '[(), ]+' -v target="$$($(CC) -dumpmachine)" ' \
    $$1 == "" && $$2 ~ /^PS3C_LEVEL_/ { architecture = substr($$2, 12); name = $$5 } \
    name != "" && match($$0, /"[^"]*"/) { \
        flags = substr($$0, RSTART + 1, RLENGTH - 2); \
        gsub(/ /, "|", flags); \
        if (architecture == "any" || index(target, architecture) == 1) print name "|" flags; \
        name = "" \
    }' $(PS3C_CPU_FOLDER)/levels.def)
PS3C_LEVELS := $(foreach word,$(PS3C_LEVEL_WORDS),$(firstword $(subst |, ,$(word))))
$(foreach word,$(PS3C_LEVEL_WORDS),$(eval \
    PS3C_FLAGS_$(firstword $(subst |, ,$(word))) := $(wordlist 2,99,$(subst |, ,$(word)))))
ifeq ($(PS3C_LEVELS),)
$(error no level read from $(PS3C_CPU_FOLDER)/levels.def)
endif

PS3C_OPEN := (
PS3C_PER_LEVEL := $(patsubst %.c,%,$(notdir $(shell grep -lE '^[^/*]*PS3C_CPU[$(PS3C_OPEN)]' $(PS3C_CPU_FOLDER)/*.c)))
PS3C_ONCE := $(filter-out $(PS3C_PER_LEVEL),$(patsubst %.c,%,$(notdir $(wildcard $(PS3C_CPU_FOLDER)/*.c))))
