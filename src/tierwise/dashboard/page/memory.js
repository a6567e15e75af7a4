// What the page remembers in the browser. One that is told to keep nothing refuses even to be asked: then the page
// remembers for as long as it is open.

function memory(storage) {
  const meanwhile = new Map();
  return {
    get(name) {
      try {
        return storage().getItem(name);
      } catch {
        return meanwhile.get(name) ?? null;
      }
    },
    set(name, value) {
      try {
        storage().setItem(name, value);
      } catch {
        meanwhile.set(name, value);
      }
    },
  };
}

export const ofThisTab = memory(() => sessionStorage);
export const ofThisBrowser = memory(() => localStorage);
